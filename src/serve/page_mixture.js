/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is served: the experts and their data, how training went, and what was measured.
 * /artel/mixture tells all of it (catalogue_describe() says how); what it does not know is
 * left out here.
 */
import {byId, colour, count, el, isNumber, mark, percent, significant, trouble} from './dom.js';
import {getJson} from './server.js';

/* ROWS of cells: a node, or [text, class]. The first of each row is its name. */
function table(caption, heads, rows)
{
    const cell = (c, k) => {
        const [inside, kind] = Array.isArray(c) ? c : [c, null];

        return k === 0 ? el('th', {scope: 'row'}, inside) : el('td', {class: kind}, inside);
    };
    const body = rows.map(row => el('tr', {}, ...row.map(cell)));

    return el('div', {class: 'scroll', tabindex: '0', role: 'region', 'aria-label': caption},
              el('table', {}, el('caption', {}, caption),
                 el('thead', {}, el('tr', {}, ...heads.map((h, k) => el('th', {
                     scope: 'col', class: rows[0][k]?.[1] === 'text' ? 'text' : null}, h)))),
                 el('tbody', {}, ...body)));
}

function fileName(path)
{
    return path ? path.split('/').pop() : '–';
}

/* ---- what it is ---- */

function overview(d)
{
    const list = el('dl');
    const term = (what, text) => text && list.append(el('dt', {}, what), el('dd', {}, text));

    term('Mixture', d.path);
    term('Method', d.method);
    term('Selector', d.selector);
    term('Precision', d.precision);
    term('Base', d.base?.path);
    term('Base’s digest', d.base?.digest?.slice(0, 16));
    return list;
}

function experts(d)
{
    const rows = (d.experts ?? []).map(e => [
        el('span', {class: 'named'}, mark(e.name), e.name, e.added ? ' (added)' : ''),
        [e.kind ?? '–', 'text'], count(e.rank), count(e.parameters), count(e.data?.rows),
        count(e.data?.tokens), count(e.data?.answer_tokens),
        [el('span', {title: e.data?.train ?? null}, fileName(e.data?.train)), 'text'],
    ]);

    return rows.length
        ? table('Experts and the text they were trained on',
                ['expert', 'kind', 'rank', 'parameters', 'rows', 'tokens', 'of answers', 'file'], rows)
        : el('p', {class: 'soft'}, 'There are no experts: this is the base alone.');
}

/* ---- curves ---- */

/* Round steps of an axis from LOW to HIGH. */
function ticks(low, high, n)
{
    const rough = (high - low || 1) / n;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map(k => k * power).find(s => s >= rough);
    const out = [];

    for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i++)
        out.push(Number((i * step).toPrecision(12)));
    return out;
}

function place(node, x, y)
{
    if (x !== null)
        node.style.left = `${x}%`;
    if (y !== null)
        node.style.bottom = `${y}%`;
    return node;
}

/* LINES [{name, points, second}] in a box; share: the axis is 0 to 1 in percent. */
function chart(title, lines, kind, share)
{
    const points = lines.flatMap(l => l.points);
    const right = Math.max(...points.map(p => p[0]));
    const high = share ? 1 : Math.max(...points.map(p => p[1])) * 1.05 || 1;
    const x = v => 100 * v / (right || 1), y = v => 100 * Math.min(1, v / high);
    const last = lines.map(l => `${l.name} from ${significant(l.points[0][1])} to ` +
        `${significant(l.points.at(-1)[1])}`).join(', ');
    const svg = el('svg:svg', {viewBox: '0 0 100 100', preserveAspectRatio: 'none', role: 'img',
                               'aria-label': `${title}: ${last}, in ${right} steps.`});
    const box = el('div', {class: `box ${kind}`}, svg);

    for (const t of ticks(0, high, 4)) {
        svg.append(el('svg:path', {class: 'grid', d: `M0 ${100 - y(t)}H100`}));
        box.append(place(el('span', {class: 'y', 'aria-hidden': 'true'},
                            share ? percent(t) : significant(t)), null, y(t)));
    }
    for (const t of ticks(0, right, 4).filter(Number.isInteger))
        box.append(place(el('span', {class: 'x', 'aria-hidden': 'true'}, count(t)), x(t), null));
    for (const l of lines)
        svg.append(el('svg:path', {class: l.second ? 'second' : null, d: 'M' + l.points.map(
            p => `${x(p[0]).toFixed(2)} ${(100 - y(p[1])).toFixed(2)}`).join('L')}));
    return el('figure', {}, el('figcaption', {}, title), box);
}

function usable(points)
{
    return (Array.isArray(points) ? points : []).filter(
        p => Array.isArray(p) && isNumber(p[0]) && isNumber(p[1]));
}

function curves(d)
{
    const boxes = [];

    for (const stage of d.stages ?? []) {
        const kind = colour(stage.name.replace(/^expert-/, ''));
        const both = (a, b) => [{name: 'training', points: usable(stage[a])},
                                {name: 'validation', points: usable(stage[b]), second: true}]
            .filter(l => l.points.length > 1);
        const loss = both('loss', 'eval_loss');
        const right = both('router_accuracy', 'eval_router_accuracy');

        if (loss.length)
            boxes.push(chart(`${stage.name}: loss`, loss, kind, false));
        if (right.length)
            boxes.push(chart(`${stage.name}: routed right`, right, kind, true));
    }
    return boxes.length ? [el('h3', {}, 'Training'),
                           el('p', {class: 'soft'}, 'Over optimizer steps; dotted: on validation rows.'),
                           el('div', {class: 'charts'}, ...boxes)]
        : [];
}

/* ---- evaluation ---- */

/* KEY of every domain and method; the best of a row is marked. */
function measured(methods, domains, key, caption, show, better)
{
    const rows = domains.map(name => {
        const values = methods.map(m => m.domains?.[name]?.[key]);
        const best = values.filter(isNumber).reduce((a, b) => better(a, b) ? a : b, NaN);

        return [name, ...values.map(v => isNumber(v) ? [show(v), v === best ? 'best' : null]
                                                     : ['–', 'none'])];
    });

    return rows.some(r => r.slice(1).some(c => c[1] !== 'none'))
        ? table(caption, ['set', ...methods.map(m => m.name)], rows)
        : null;
}

function evaluation(d)
{
    const methods = (d.evaluation?.methods ?? []).filter(m => m && typeof m.name === 'string');
    const domains = [...new Set(methods.flatMap(m => Object.keys(m.domains ?? {})))];
    const routed = methods.filter(m => isNumber(m.routing_accuracy))
        .map(m => `${m.name} ${percent(m.routing_accuracy, 1)}`);

    if (!domains.length)
        return [el('h3', {}, 'Evaluation'),
                el('p', {class: 'soft'}, 'This run has no results yet: artel eval makes them.')];
    return [el('h3', {}, 'Evaluation'),
            measured(methods, domains, 'score', 'Score (share of answers that are right)',
                     v => percent(v, 1), (a, b) => a > b),
            measured(methods, domains, 'perplexity', 'Perplexity of the answers (lower is better)',
                     v => v < 1e4 ? v.toPrecision(4) : significant(v), (a, b) => a < b),
            routed.length ? el('p', {}, `Rows sent to the expert of their domain: ${routed.join(', ')}.`) : null];
}

let shown = false;

/* When the tab is opened: once, for it does not change often. */
export async function showMixture()
{
    if (shown)
        return;
    shown = true;
    try {
        const d = await getJson('/artel/mixture');
        const parts = [overview(d), el('h3', {}, 'Experts'), experts(d), ...evaluation(d), ...curves(d)];

        byId('mixture').replaceChildren(...parts.filter(Boolean));
        trouble('');
    } catch (e) {
        shown = false; /* the next time asks again */
        trouble(e.message);
    }
}
