/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Markdown as models write it, to elements. The text is never parsed as HTML: tags in it
 * are shown as they stand. Links lead to http and https only, and images are links.
 *
 * Every loop goes on by at least a character or a line, and a search that failed is not
 * repeated in the same text, so that the time is about linear in the length.
 */
import {el} from './dom.js';

const DEPTH = 12; /* of lists, quotes and emphasis in one another */

/* ---- in a line ---- */

function safeLink(address)
{
    try {
        const url = new URL(address);

        return url.protocol === 'http:' || url.protocol === 'https:' ? url.href : null;
    } catch {
        return null;
    }
}

function link(address, ...children)
{
    return el('a', {href: address, target: '_blank', rel: 'noopener noreferrer nofollow'},
              ...children);
}

const isWord = c => c !== undefined && /[\p{L}\p{N}]/u.test(c);
const isSpace = c => c === undefined || /\s/.test(c);

/* Where MARK that opens at AT closes, or -1. Emphasis hugs its text, and _ stands at the
 * edge of words, so that snake_case stays. */
function closing(text, at, mark, failed)
{
    const from = at + mark.length;

    if (failed.has(mark) || isSpace(text[from]) || (mark[0] === '_' && isWord(text[at - 1])))
        return -1;
    for (let i = text.indexOf(mark, from + 1); i > 0; i = text.indexOf(mark, i + 1)) {
        if (isSpace(text[i - 1]) || (mark[0] === '_' && isWord(text[i + mark.length])))
            continue;
        if (mark.length === 1 && (text[i + 1] === mark || text[i - 1] === mark))
            continue; /* half of a double one */
        if (mark.length === 2 && text[i + 2] === mark[0])
            continue; /* the last two of three */
        return i;
    }
    failed.add(mark);
    return -1;
}

/* [words](address) or ![words](address) at AT: its pieces, or null. */
function linkAt(text, at, failed)
{
    const open = text[at] === '!' ? at + 1 : at;

    if (text[open] !== '[' || failed.has(']('))
        return null;
    const middle = text.indexOf('](', open);
    if (middle < 0) {
        failed.add('](');
        return null;
    }
    const end = text.indexOf(')', middle);
    if (end < 0 || middle - open > 1000 || end - middle > 2000 ||
        text.slice(open + 1, middle).includes('['))
        return null;
    const address = text.slice(middle + 2, end).trim().replace(/\s+["'(].*$/s, '');
    return {words: text.slice(open + 1, middle), address: safeLink(address), end: end + 1};
}

const bare = /https?:\/\/[^\s<>"'`\]]{1,2000}/y;

/* A bare address: what ends a sentence is no part of it. */
function bareAt(text, at)
{
    if (text[at] !== 'h' || isWord(text[at - 1]))
        return null;
    bare.lastIndex = at;
    const found = bare.exec(text);
    if (!found)
        return null;
    const address = found[0].replace(/[.,;:!?)*_]+$/, '');
    return safeLink(address) ? address : null;
}

const emphasis = [['**', 'strong'], ['__', 'strong'], ['~~', 'del'], ['*', 'em'], ['_', 'em']];

function inline(parent, text, depth)
{
    const failed = new Set();
    let plain = '';
    let at = 0;
    const put = (node, next) => {
        if (plain)
            parent.append(plain);
        plain = '';
        parent.append(node);
        at = next;
    };

    while (at < text.length) {
        const c = text[at];

        if (c === '\\' && /[!-/:-@[-`{-~]/.test(text[at + 1] ?? '')) {
            plain += text[at + 1];
            at += 2;
            continue;
        }
        if (c === '\n') {
            put(el('br'), at + 1);
            continue;
        }
        if (c === '`') {
            const ticks = /^`+/.exec(text.slice(at, at + 20))[0];
            const end = failed.has(ticks) ? -1 : text.indexOf(ticks, at + ticks.length);

            if (end > 0) {
                const code = text.slice(at + ticks.length, end);
                put(el('code', {}, code.trim() ? code.replace(/^ (.*) $/s, '$1') : code),
                    end + ticks.length);
            } else {
                failed.add(ticks);
                plain += ticks;
                at += ticks.length;
            }
            continue;
        }
        if (depth < DEPTH) {
            const kind = emphasis.find(([mark]) => text.startsWith(mark, at));
            const end = kind ? closing(text, at, kind[0], failed) : -1;

            if (end > 0) {
                const node = el(kind[1]);
                inline(node, text.slice(at + kind[0].length, end), depth + 1);
                put(node, end + kind[0].length);
                continue;
            }
            if (kind) {
                plain += kind[0];
                at += kind[0].length;
                continue;
            }
            const found = c === '[' || c === '!' ? linkAt(text, at, failed) : null;
            if (found && found.address) {
                const node = link(found.address);
                inline(node, found.words || found.address, DEPTH);
                put(node, found.end);
                continue;
            }
        }
        const address = depth < DEPTH ? bareAt(text, at) : null;
        if (address) {
            put(link(safeLink(address), address), at + address.length);
            continue;
        }
        plain += c;
        at++;
    }
    if (plain)
        parent.append(plain);
}

/* ---- lines ---- */

const fence = /^( {0,3})(`{3,}|~{3,})\s*([^`]*)$/;
const heading = /^ {0,3}(#{1,6})\s+(.*)$/;
const rule = /^ {0,3}([-*_])(\s*\1){2,}\s*$/;
const item = /^(\s*)([-*+]|\d{1,9}[.)])(\s+|$)(.*)$/;
const quote = /^ {0,3}> ?/;
const dashes = /^\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$/;

function cells(line)
{
    const row = line.trim().replace(/^\|/, '').replace(/(^|[^\\])\|$/, '$1');

    return row.split(/(?<!\\)\|/).map(cell => cell.trim().replaceAll('\\|', '|'));
}

const isTable = (lines, i) =>
    lines[i].includes('|') && i + 1 < lines.length && lines[i + 1].includes('-') &&
    dashes.test(lines[i + 1]) && cells(lines[i]).length === cells(lines[i + 1]).length;

const begins = (lines, i) => fence.test(lines[i]) || heading.test(lines[i]) ||
    rule.test(lines[i]) || item.test(lines[i]) || quote.test(lines[i]) || isTable(lines, i);

function codeBlock(text, language, whole)
{
    const pre = el('pre', {tabindex: '0'}, el('code', {}, text));
    const button = el('button', {type: 'button', class: 'quiet copy'}, 'Copy');

    button.addEventListener('click', () => copy(text, button));
    return el('div', {class: 'code'},
              el('div', {class: 'row'}, el('span', {class: 'soft'}, language || 'text'),
                 el('span', {class: 'fill'}), whole ? button : null),
              pre);
}

async function copy(text, button)
{
    try {
        await navigator.clipboard.writeText(text);
        button.textContent = 'Copied';
    } catch { /* not over plain http from afar, and not without leave */
        const area = el('textarea', {class: 'unseen', 'aria-hidden': 'true'});

        area.value = text;
        document.body.append(area);
        area.select();
        button.textContent = document.execCommand('copy') ? 'Copied' : 'Not copied';
        area.remove();
        button.focus();
    }
    setTimeout(() => {
        button.textContent = 'Copy';
    }, 2000);
}

function table(lines, i, parent)
{
    const sides = cells(lines[i + 1]).map(d => d.endsWith(':') ? 'right' : 'text');
    const row = (line, name) => el('tr', {}, ...cells(line).slice(0, sides.length).map((text, k) => {
        const cell = el(name, {class: sides[k], scope: name === 'th' ? 'col' : null});
        inline(cell, text, 0);
        return cell;
    }));
    const head = row(lines[i], 'th');
    const body = el('tbody');

    for (i += 2; i < lines.length && lines[i].trim() && lines[i].includes('|'); i++)
        body.append(row(lines[i], 'td'));
    parent.append(el('div', {class: 'scroll', tabindex: '0', role: 'region', 'aria-label': 'Table'},
                     el('table', {}, el('thead', {}, head), body)));
    return i;
}

/* Lines of one item are those that are indented as deep as its text, and blank ones between. */
function list(lines, i, parent, depth)
{
    const [, pad, bullet] = item.exec(lines[i]);
    const ordered = /\d/.test(bullet);
    const node = el(ordered ? 'ol' : 'ul', {start: ordered ? parseInt(bullet, 10) : null});

    while (i < lines.length) {
        const found = item.exec(lines[i]);

        if (!found || found[1].length < pad.length || found[1].length > pad.length + 3 ||
            /\d/.test(found[2]) !== ordered || rule.test(lines[i]))
            break;
        const indent = found[1].length + 1;
        const own = [found[4]];
        for (i++; i < lines.length; i++) {
            const deep = lines[i].search(/\S/);

            if (deep < 0) { /* blank: it belongs to the item if what follows does */
                const next = lines[i + 1] ?? '';
                if (next.search(/\S/) <= found[1].length)
                    break;
            } else if (deep < indent && (begins(lines, i) || own.at(-1).trim() === '')) {
                break;
            }
            own.push(lines[i].slice(Math.min(Math.max(deep, 0),
                                             found[1].length + found[2].length + 1)));
        }
        const li = el('li');
        blocks(li, own, depth + 1);
        if (li.childNodes.length === 1 && li.firstChild.nodeName === 'P')
            li.replaceChildren(...li.firstChild.childNodes);
        node.append(li);
        while (i < lines.length && !lines[i].trim() && item.test(lines[i + 1] ?? ''))
            i++;
    }
    parent.append(node);
    return i;
}

function quoted(lines, i, parent, depth)
{
    const own = [];

    for (; i < lines.length && quote.test(lines[i]); i++)
        own.push(lines[i].replace(quote, ''));
    const node = el('blockquote');
    blocks(node, own, depth + 1);
    parent.append(node);
    return i;
}

function fenced(lines, i, parent)
{
    const [, pad, mark, language] = fence.exec(lines[i]);
    const own = [];
    const ends = line => line.trim().startsWith(mark) && !line.trim().replaceAll(mark[0], '');

    for (i++; i < lines.length && !ends(lines[i]); i++)
        own.push(lines[i].startsWith(pad) ? lines[i].slice(pad.length) : lines[i]);
    parent.append(codeBlock(own.join('\n'), language.trim(), i < lines.length));
    return i + 1;
}

function paragraph(lines, i, parent)
{
    const own = [lines[i].trim()];

    for (i++; i < lines.length && lines[i].trim() && !begins(lines, i); i++)
        own.push(lines[i].trim());
    const node = el('p');
    inline(node, own.join('\n'), 0);
    parent.append(node);
    return i;
}

function blocks(parent, lines, depth)
{
    let i = 0;

    while (i < lines.length) {
        const title = heading.exec(lines[i]);

        if (!lines[i].trim()) {
            i++;
        } else if (depth >= DEPTH) {
            i = paragraph(lines, i, parent);
        } else if (fence.test(lines[i])) {
            i = fenced(lines, i, parent);
        } else if (title) { /* below the page's own headings */
            const node = el(`h${Math.min(6, title[1].length + 3)}`);
            inline(node, title[2].trim().replace(/\s#+$/, ''), 0);
            parent.append(node);
            i++;
        } else if (rule.test(lines[i])) {
            parent.append(el('hr'));
            i++;
        } else if (quote.test(lines[i])) {
            i = quoted(lines, i, parent, depth);
        } else if (isTable(lines, i)) {
            i = table(lines, i, parent);
        } else if (item.test(lines[i])) {
            i = list(lines, i, parent, depth);
        } else {
            i = paragraph(lines, i, parent);
        }
    }
}

/* TEXT as elements in a fragment. */
export function markdown(text)
{
    const out = document.createDocumentFragment();

    blocks(out, text.replaceAll('\r\n', '\n').replaceAll('\t', '    ').split('\n'), 0);
    return out;
}
