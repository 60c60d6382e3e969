/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How an answer came about: who wrote it, how sure the routers were, what each of them
 * thought, and how fast it went.
 */
import {colour, el, isNumber, mark, percent, seconds, significant} from './dom.js';

/* The probability of the one who answers, as the mean over the routers. */
function sureness(artel)
{
    const p = artel.probabilities;

    if (!p)
        return null;
    return isNumber(p[artel.expert]) ? p[artel.expert] : Math.max(...Object.values(p));
}

/* [words, what they mean] of M, an answer as page_store.js describes it. */
function facts(m)
{
    const a = m.artel ?? {};
    const out = [];

    if (a.per_token)
        out.push(['mixed anew for each token', `the largest mean share is ${percent(sureness(a))}`]);
    else if (a.below)
        out.push(['routers not sure enough', `the likeliest had ${percent(sureness(a))}`]);
    else if (a.probabilities)
        out.push([`${percent(sureness(a))} sure`, 'probability of this expert, mean over the routers']);
    else if (a.expert)
        out.push(['not routed', 'it was asked for by name']);
    if (isNumber(a.layers_agreeing))
        out.push([`${a.layers_agreeing} of ${a.routers} layers agree`, 'their routers chose this expert']);
    if (m.tokens > 1 && m.elapsed > m.first)
        out.push([`${significant((m.tokens - 1) / (m.elapsed - m.first))} tokens/s`,
                  `${m.tokens} tokens, after the first`]);
    if (isNumber(m.first))
        out.push([`first after ${seconds(m.first)}`, 'time to the first text']);
    if (m.finish === 'length')
        out.push(['cut at the limit of tokens', 'see the settings']);
    if (m.finish === 'stopped')
        out.push(['stopped', 'by you']);
    return out;
}

/* One sentence for those who listen. */
export function routeInWords(m)
{
    return `Answered by ${m.artel?.expert ?? m.asked}: ${facts(m).map(f => f[0]).join(', ')}.`;
}

/* ---- the map: a row an expert, a column a layer, so that it is wide and low ---- */

const ROW = 12, WIDTH = 300;

function chosen(layer)
{
    return layer.indexOf(Math.max(...layer));
}

function heatMap(names, layers)
{
    const step = Math.min(14, WIDTH / layers.length);
    const gap = step > 4 ? 1 : 0;
    const width = step * layers.length, height = ROW * names.length;
    const svg = el('svg:svg', {class: 'heat', viewBox: `0 0 ${width} ${height}`, width, height,
                               role: 'img', 'aria-label': mapInWords(names, layers)});

    layers.forEach((layer, l) => {
        const best = chosen(layer);

        layer.forEach((p, e) => {
            const place = {x: (l * step).toFixed(2), y: e * ROW, width: (step - gap).toFixed(2),
                           height: ROW - 1};
            svg.append(el('svg:rect', {...place, class: 'cell'}),
                       el('svg:rect', {...place, class: `heat-value ${colour(names[e])}` +
                                                (e === best ? ' best' : ''),
                                       'fill-opacity': Number(p.toFixed(3))},
                          el('svg:title', {}, `layer ${l}, ${names[e]}: ${percent(p, 1)}`)));
        });
    });
    return svg;
}

function mapInWords(names, layers)
{
    const votes = names.map((name, e) => [name, layers.filter(l => chosen(l) === e).length])
        .filter(v => v[1] > 0).sort((a, b) => b[1] - a[1]);

    return `Routing by layer: ${votes.map(([name, n]) => `${n} of ${layers.length} layers chose ${name}`)
        .join(', ')}.`;
}

function layerTable(names, layers)
{
    const head = el('tr', {}, el('th', {scope: 'col'}, 'layer'),
                    ...names.map(n => el('th', {scope: 'col'}, n)));
    const rows = layers.map((layer, l) => el('tr', {}, el('th', {scope: 'row'}, String(l)),
        ...layer.map((p, e) => el('td', {class: e === chosen(layer) ? 'best' : null}, percent(p, 1)))));

    return el('div', {class: 'scroll', tabindex: '0', role: 'region', 'aria-label': 'Probabilities by layer'},
              el('table', {}, el('thead', {}, head), el('tbody', {}, ...rows)));
}

/* The map with its names, and its numbers behind a summary. */
function map(artel)
{
    const {experts: names, layers} = artel;
    const numbers = el('details', {}, el('summary', {}, 'As numbers'));

    numbers.addEventListener('toggle', () => {
        if (numbers.open && numbers.childNodes.length === 1)
            numbers.append(layerTable(names, layers));
    });
    return el('details', {class: 'layers', open: true},
              el('summary', {}, layers.length > 1 ? 'Routing by layer' : 'Routing'),
              el('div', {class: 'map'},
                 el('div', {class: 'map-names', 'aria-hidden': 'true'},
                    ...names.map(n => el('span', {class: n === artel.expert ? 'own' : null, title: n},
                                         mark(n), n))),
                 el('div', {class: 'map-body'}, heatMap(names, layers),
                    layers.length > 1
                        ? el('div', {class: 'map-axis soft', 'aria-hidden': 'true'}, el('span', {}, 'first layer'),
                             el('span', {}, 'last'))
                        : null)),
              numbers);
}

/* The line above an answer: who, and facts. */
export function routeLine(m)
{
    const who = m.artel?.expert ?? m.asked;

    return el('p', {class: 'route'}, mark(who),
              el('strong', {class: `who ${colour(who)}`}, m.artel || m.finish ? who : `${who} …`),
              ...facts(m).flatMap(([words, why]) => [' ', el('span', {class: 'fact', title: why}, words)]));
}

/* The map below it, or null where nothing was routed. */
export function routeMap(m)
{
    const a = m.artel;
    const fits = a && Array.isArray(a.experts) && Array.isArray(a.layers) && a.layers.length &&
        a.layers.every(l => Array.isArray(l) && l.length === a.experts.length && l.every(isNumber));

    return fits ? map(a) : null;
}
