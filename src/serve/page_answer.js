/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One answer on the page, from the first piece of its text to its route, the same in the
 * chat and in the comparison.
 */
import {el} from './dom.js';
import {markdown} from './markdown.js';
import {routeLine, routeMap} from './route.js';
import {answer} from './server.js';
import {settings} from './store.js';

const BETWEEN = 80; /* ms between two paintings of text that grows */

/* What of the settings goes into a request. */
export function asRequest(model, messages)
{
    const request = {model, messages};
    const temperature = parseFloat(settings.temperature);
    const most = parseInt(settings.maxTokens, 10);

    if (settings.system.trim())
        request.messages = [{role: 'system', content: settings.system}, ...messages];
    if (Number.isFinite(temperature))
        request.temperature = temperature;
    if (most > 0)
        request.max_tokens = most;
    return request;
}

/* M as elements: {node, paint()}; paint() shows what M has become. */
export function answerView(m)
{
    const line = el('div'), text = el('div', {class: 'text'}), below = el('div');
    const node = el('div', {class: 'answer'}, line, text, below);
    let mapped = null;

    function paint()
    {
        line.replaceChildren(routeLine(m));
        text.replaceChildren(markdown(m.content));
        if (m.artel !== mapped) { /* drawn once: it may be open or closed by now */
            mapped = m.artel;
            below.replaceChildren(...[routeMap(m)].filter(Boolean));
        }
    }
    paint();
    return {node, paint};
}

/* Fills M with the answer to MESSAGES while VIEW shows it. Throws what went wrong; what
 * had come until then stays in M. */
export async function write(m, view, messages, signal)
{
    let due = 0;

    view.node.setAttribute('aria-busy', 'true');
    try {
        await answer(asRequest(m.asked, messages), signal, so => {
            Object.assign(m, {content: so.text, artel: so.artel, first: so.first,
                              elapsed: so.elapsed, tokens: so.tokens, finish: so.finish});
            due ||= setTimeout(() => {
                due = 0;
                view.paint();
            }, BETWEEN);
        });
    } catch (e) {
        m.finish = e.name === 'AbortError' ? 'stopped' : 'failed';
        if (m.finish === 'failed')
            throw e;
    } finally {
        clearTimeout(due);
        view.node.removeAttribute('aria-busy');
        view.paint();
    }
}
