/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Elements, numbers as text, and what is said to those who listen. Text becomes text
 * nodes; nothing on this page is ever parsed as HTML.
 */

export const byId = id => document.getElementById(id);

/* el('p', {class: 'soft', title: t}, 'text', child, null): attributes that are null or
 * false are left out, functions become listeners. */
export function el(name, attributes = {}, ...children)
{
    const e = name.startsWith('svg:')
        ? document.createElementNS('http://www.w3.org/2000/svg', name.slice(4))
        : document.createElement(name);

    for (const [key, value] of Object.entries(attributes)) {
        if (typeof value === 'function')
            e.addEventListener(key, value);
        else if (value !== null && value !== undefined && value !== false)
            e.setAttribute(key, value === true ? '' : value);
    }
    e.append(...children.filter(c => c !== null && c !== undefined));
    return e;
}

/* For screen readers, one after the other. */
export function say(text)
{
    const lines = byId('said');

    lines.append(el('p', {}, text));
    if (lines.childNodes.length > 20)
        lines.firstChild.remove();
}

export function trouble(text)
{
    byId('trouble').textContent = text;
    byId('trouble').hidden = !text;
}

/* ---- numbers ---- */

export function isNumber(x)
{
    return typeof x === 'number' && Number.isFinite(x);
}

export function percent(x, digits = 0)
{
    return isNumber(x) ? `${(100 * x).toFixed(digits)} %` : '–';
}

export function count(x)
{
    return isNumber(x) ? Math.round(x).toLocaleString('en') : '–';
}

export function significant(x, digits = 3)
{
    if (!isNumber(x))
        return '–';
    if (Math.abs(x) >= 1e6 || (x !== 0 && Math.abs(x) < 1e-4))
        return x.toExponential(digits - 1);
    return String(Number(x.toPrecision(digits)));
}

export function seconds(x)
{
    return x < 1 ? `${Math.round(1000 * x)} ms` : `${x.toFixed(x < 10 ? 2 : 1)} s`;
}

/* ---- dialogs ---- */

/* Shows DIALOG; true when its form was sent, false when it was left. */
export function asked(dialog)
{
    return new Promise(done => {
        dialog.returnValue = '';
        dialog.querySelector('.cancel').onclick = () => dialog.close('');
        dialog.addEventListener('close', () => done(dialog.returnValue === 'keep'), {once: true});
        dialog.showModal();
    });
}

/* ---- names with a colour ---- */

let names = []; /* of experts, in the mixture's order */

export function setExperts(list)
{
    names = list;
}

/* 7 colours and 5 shapes have no common factor: 35 experts differ. The base has its own. */
export function colour(name)
{
    const at = names.indexOf(name);

    return at < 0 ? 'c0' : `c${1 + at % 7}`;
}

export function mark(name)
{
    const at = names.indexOf(name);

    return el('i', {class: `mark ${colour(name)} s${(at + 1) % 5}`, 'aria-hidden': 'true'});
}
