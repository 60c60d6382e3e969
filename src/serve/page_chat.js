/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The chat: conversations beside it, a question, and the answer as it is written.
 */
import {answerView, write} from './answer.js';
import {asked, byId, el, say} from './dom.js';
import {routeInWords} from './route.js';
import * as store from './store.js';

let current = null;
let writing = null; /* AbortController of the answer under way */

/* ---- conversations ---- */

function tellKept()
{
    byId('kept').textContent = store.kept.well
        ? 'Conversations are kept in this browser only.'
        : 'This browser keeps nothing more: its storage is full or off. Export what you need.';
    byId('kept').classList.toggle('wrong', !store.kept.well);
}

function keep()
{
    current.changed = Date.now();
    store.save(current);
    showList();
}

async function rename(c)
{
    byId('name').value = c.title;
    if (!await asked(byId('rename-dialog')) || !byId('name').value.trim())
        return;
    c.title = byId('name').value.trim();
    c.named = true;
    store.save(c);
    showList();
}

function forget(c)
{
    if (!confirm(`Delete “${c.title}” from this browser?`))
        return;
    store.remove(c);
    if (c === current)
        open(store.conversations()[0] ?? store.fresh(byId('expert').value));
    showList();
    byId('new').focus();
}

function exported(list, name)
{
    const text = JSON.stringify({format: 'artel conversations', version: 1, conversations: list}, null, 1);
    const address = URL.createObjectURL(new Blob([text], {type: 'application/json'}));
    const a = el('a', {href: address, download: name});

    a.click();
    setTimeout(() => URL.revokeObjectURL(address), 10000);
}

function entry(c)
{
    const button = (label, words, act) => el('button', {
        type: 'button', class: 'quiet small', 'aria-label': `${label} ${c.title}`, title: label, click: act,
    }, words);

    return el('li', {class: c === current ? 'open' : null},
              el('button', {type: 'button', class: 'name', 'aria-current': c === current ? 'true' : null,
                            click: () => open(c)}, c.title),
              el('span', {class: 'tools'}, button('Rename', '✎', () => rename(c)),
                 button('Export', '⤓', () => exported([c], 'conversation.json')),
                 button('Delete', '✕', () => forget(c))));
}

function showList()
{
    const list = store.conversations();

    byId('conversations').replaceChildren(...list.map(entry));
    byId('title').textContent = current.title;
    byId('export').hidden = !list.length;
    tellKept();
}

function showAside(shown)
{
    byId('aside').classList.toggle('shown', shown);
    byId('show-aside').setAttribute('aria-expanded', String(shown));
}

function open(c)
{
    writing?.abort();
    writing = null;
    busy(false);
    current = c;
    showAside(false);
    showList();
    byId('messages').replaceChildren(...c.messages.map(m => view(m).node));
    if (!c.messages.length)
        byId('messages').append(el('li', {class: 'empty soft'},
                                   'Ask something. Each answer shows which expert wrote it and how sure the routers were.'));
    offerAgain();
    if ([...byId('expert').options].some(o => o.value === c.expert))
        byId('expert').value = c.expert;
    toEnd();
}

/* ---- messages ---- */

function view(m)
{
    if (m.role === 'user')
        return {node: el('li', {class: 'user'}, el('span', {class: 'unseen'}, 'You: '),
                         el('div', {class: 'text'}, m.content))};
    const v = answerView(m);
    return {...v, busy: v.node, node: el('li', {class: 'assistant'}, v.node)};
}

/* The last answer may be asked for again. */
function offerAgain()
{
    const last = current.messages.at(-1);

    byId('messages').querySelector('.again')?.remove();
    if (!last || writing)
        return;
    byId('messages').lastElementChild.append(
        el('button', {type: 'button', class: 'quiet small again', click: again},
           last.role === 'user' ? 'Try again' : 'Answer again'));
}

function toEnd()
{
    const list = byId('messages');

    list.scrollTop = list.scrollHeight;
}

/* CHANGE makes the list longer: who is at its end stays there, who reads above is left. */
function growing(change)
{
    const list = byId('messages');
    const stays = list.scrollHeight - list.scrollTop - list.clientHeight < 60;

    change();
    if (stays)
        toEnd();
}

function again()
{
    if (current.messages.at(-1).role === 'assistant') {
        current.messages.pop();
        byId('messages').lastElementChild.remove();
    }
    byId('messages').querySelector('.failed')?.closest('li').remove();
    answerNow();
    byId('question').focus();
}

function busy(on)
{
    byId('stop').hidden = !on;
    byId('send').hidden = on;
}

/* Fields that the API knows; what else is kept here is the page's own. */
function asMessages(list)
{
    return list.map(({role, content}) => ({role, content}));
}

/* Says of M, as it grows, each sentence once it is whole; at last the rest, and the route. */
function sentences(m)
{
    let from = 0;

    return (all = false) => {
        const text = m.content.slice(from);
        const whole = all ? text : /^.*[.!?:;\n](?=\s)/s.exec(text)?.[0] ?? '';

        from += whole.length;
        if (whole.trim())
            say(whole.trim());
        if (all)
            say(routeInWords(m));
    };
}

async function answerNow()
{
    const c = current, control = new AbortController();
    const m = {role: 'assistant', content: '', asked: byId('expert').value};
    const v = view(m);
    const messages = asMessages(c.messages);
    const told = sentences(m);
    const shown = {node: v.busy, paint() {
        growing(v.paint);
        if (c === current)
            told();
    }};

    c.expert = m.asked;
    writing = control;
    busy(true);
    offerAgain();
    byId('messages').append(v.node);
    toEnd();
    say('Waiting for the answer');
    try {
        await write(m, shown, messages, control.signal);
        told(true);
    } catch (e) {
        v.node.append(el('p', {class: 'wrong failed', role: 'alert'}, e.message));
    }
    if (writing === control) {
        writing = null;
        busy(false);
    }
    if ((m.content || m.finish !== 'failed') && store.has(c)) {
        c.messages.push(m);
        c.changed = Date.now();
        store.save(c);
    }
    if (c === current) {
        showList();
        growing(offerAgain);
    }
}

function send()
{
    const question = byId('question').value.trim();

    if (!question || writing)
        return;
    byId('question').value = '';
    byId('messages').querySelector('.empty')?.remove();
    current.messages.push({role: 'user', content: question});
    if (!current.named && current.messages.length === 1)
        current.title = question.replace(/\s+/g, ' ').slice(0, 60);
    byId('messages').append(view(current.messages.at(-1)).node);
    keep();
    answerNow();
}

/* ---- settings ---- */

async function changeSettings()
{
    const fields = {temperature: 'temperature', maxTokens: 'max-tokens', system: 'system'};

    for (const [key, id] of Object.entries(fields))
        byId(id).value = store.settings[key];
    if (!await asked(byId('settings')))
        return;
    for (const [key, id] of Object.entries(fields))
        store.settings[key] = byId(id).value;
    store.saveSettings();
    tellKept();
}

/* Enter sends; with Shift, or while an input method composes, it is a new line. */
export function enterSends(area, act)
{
    area.addEventListener('keydown', e => {
        if (e.key !== 'Enter' || e.shiftKey || e.isComposing)
            return;
        e.preventDefault();
        act();
    });
}

export function startChat()
{
    byId('ask').addEventListener('submit', e => {
        e.preventDefault();
        send();
    });
    enterSends(byId('question'), send);
    byId('stop').addEventListener('click', () => {
        writing?.abort();
        byId('question').focus();
    });
    byId('new').addEventListener('click', () => {
        open(store.fresh(byId('expert').value));
        byId('question').focus();
    });
    byId('export').addEventListener('click', () => exported(store.conversations(), 'conversations.json'));
    byId('open-settings').addEventListener('click', changeSettings);
    byId('show-aside').addEventListener('click',
        () => showAside(!byId('aside').classList.contains('shown')));
    store.onOthers(id => {
        const c = store.conversations().find(x => x.id === id);

        if (id === current.id && c && !writing)
            open(c);
        else
            showList();
    });
    open(store.conversations()[0] ?? store.fresh('auto'));
}
