/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One question to two: both answers are asked for at once and written side by side.
 */
import {answerView, write} from './answer.js';
import {enterSends} from './chat.js';
import {byId, el, say} from './dom.js';
import {routeInWords} from './route.js';

let writing = null;

function busy(on)
{
    byId('both-stop').hidden = !on;
    byId('both-send').hidden = on;
}

async function one(asked, question, column, signal)
{
    const m = {role: 'assistant', content: '', asked};
    const view = answerView(m);

    column.append(view.node);
    try {
        await write(m, view, [{role: 'user', content: question}], signal);
        return `${routeInWords(m)} ${m.content}`;
    } catch (e) {
        column.append(el('p', {class: 'wrong', role: 'alert'}, e.message));
        return '';
    }
}

async function ask()
{
    const question = byId('both-question').value.trim();

    if (!question || writing)
        return;
    writing = new AbortController();
    busy(true);
    const sides = ['left', 'right'].map(side => ({
        asked: byId(side).value,
        column: el('div', {class: 'side'}, el('h4', {}, byId(side).selectedOptions[0].text)),
    }));
    byId('rounds').prepend(el('article', {class: 'round'}, el('h3', {}, question),
                              el('div', {class: 'sides'}, ...sides.map(s => s.column))));
    const said = await Promise.all(sides.map(s => one(s.asked, question, s.column, writing.signal)));
    writing = null;
    busy(false);
    say(said.join(' '));
}

export function startCompare()
{
    byId('ask-both').addEventListener('submit', e => {
        e.preventDefault();
        ask();
    });
    enterSends(byId('both-question'), ask);
    byId('both-stop').addEventListener('click', () => writing?.abort());
}
