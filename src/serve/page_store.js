/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What this browser keeps: settings, and conversations, each under a key of its own so
 * that a word more writes one of them only. Where storage is off or full, all goes on
 * until the page is closed, and KEPT says so.
 *
 *     conversation   {id, title, named, expert, changed, messages: [MESSAGE]}
 *     MESSAGE        {role: "user", content} or
 *                    {role: "assistant", content, asked, artel, first, elapsed, tokens, finish}
 */
const PREFIX = 'artel.conversation.';
const SETTINGS = 'artel.settings';

const loaded = new Map();
export const kept = {well: true};

function write(key, value)
{
    try {
        localStorage.setItem(key, JSON.stringify(value));
        kept.well = true;
    } catch { /* full, or off */
        kept.well = false;
    }
}

function read(key)
{
    try {
        return JSON.parse(localStorage.getItem(key));
    } catch {
        return null; /* off, or not ours */
    }
}

/* Is this what save() wrote? Others on this origin may have written too. */
function whole(c)
{
    return c && typeof c.id === 'string' && typeof c.title === 'string' &&
        Array.isArray(c.messages) &&
        c.messages.every(m => m && typeof m.content === 'string' && typeof m.role === 'string');
}

function load()
{
    let keys = [];

    try {
        keys = Object.keys(localStorage);
    } catch { /* off */
    }
    for (const key of keys.filter(k => k.startsWith(PREFIX))) {
        const c = read(key);

        if (whole(c) && key === PREFIX + c.id)
            loaded.set(c.id, c);
    }
}
load();

export const settings = {temperature: '0', maxTokens: '', system: '', ...read(SETTINGS)};

export function saveSettings()
{
    write(SETTINGS, settings);
}

/* Newest first. */
export function conversations()
{
    return [...loaded.values()].sort((a, b) => b.changed - a.changed);
}

export function fresh(expert)
{
    const id = [...crypto.getRandomValues(new Uint32Array(3))].map(x => x.toString(36)).join('');

    return {id, title: 'New conversation', named: false, expert, changed: Date.now(), messages: []};
}

export function save(c)
{
    loaded.set(c.id, c);
    write(PREFIX + c.id, c);
}

/* Has it been saved, and not been removed since? */
export function has(c)
{
    return loaded.has(c.id);
}

export function remove(c)
{
    loaded.delete(c.id);
    try {
        localStorage.removeItem(PREFIX + c.id);
    } catch { /* off: it was not there */
    }
}

/* Another tab wrote: CHANGED is called with the id. */
export function onOthers(changed)
{
    addEventListener('storage', e => {
        if (!e.key?.startsWith(PREFIX))
            return;
        const id = e.key.slice(PREFIX.length);
        const c = e.newValue === null ? null : read(e.key);

        if (whole(c))
            loaded.set(id, c);
        else
            loaded.delete(id);
        changed(id);
    });
}
