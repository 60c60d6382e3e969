/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Calls to the server that this page came from: JSON, and answers as they are written.
 * Where it asks for a key, so does the page, once; the key lives in sessionStorage, which
 * ends with the tab.
 */
import {asked, byId} from './dom.js';

const KEY = 'artel.key';

let asking = null; /* the dialog that is open, for all who wait for it */

async function askForKey(refused)
{
    asking ??= (async () => {
        byId('key').value = '';
        byId('key-wrong').hidden = !refused;
        const given = await asked(byId('key-dialog'));
        if (given)
            sessionStorage.setItem(KEY, byId('key').value.trim());
        asking = null;
        return given;
    })();
    return asking;
}

function sentence(words)
{
    return words[0].toUpperCase() + words.slice(1) + (/[.!?]$/.test(words) ? '' : '.');
}

/* What the server says is wrong, in its own words. */
async function problem(response)
{
    let words = '';

    try {
        words = (await response.json()).error.message;
    } catch { /* not JSON: a proxy's page */
    }
    const wait = response.headers.get('Retry-After');
    const busy = response.status === 429 || response.status === 503;
    const later = wait ? ` Try again in ${wait} s.` : ' Try again soon.';
    return new Error(sentence(words || `the server answers ${response.status}`) + (busy ? later : ''));
}

async function call(path, options)
{
    for (;;) {
        const key = sessionStorage.getItem(KEY);
        const headers = {...options.headers};
        let response;

        if (key)
            headers.Authorization = `Bearer ${key}`;
        try {
            response = await fetch(path, {...options, headers, cache: 'no-store'});
        } catch (e) {
            if (e.name === 'AbortError')
                throw e;
            throw new Error('The server cannot be reached.');
        }
        if (response.ok)
            return response;
        if (response.status !== 401)
            throw await problem(response);
        if (sessionStorage.getItem(KEY) === key && !await askForKey(key !== null))
            throw new Error('This server asks for a key.');
    }
}

export async function getJson(path)
{
    return (await call(path, {})).json();
}

/* ---- server-sent events ---- */

/* The data of each event; lines may be cut anywhere between two reads. */
async function* events(body)
{
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = '', data = [];

    try {
        for (;;) {
            const {value, done} = await reader.read();

            if (done)
                return;
            const lines = (rest + value).split('\n');
            rest = lines.pop();
            for (const line of lines.map(l => l.replace(/\r$/, ''))) {
                if (line.startsWith('data:')) {
                    data.push(line.slice(5).replace(/^ /, ''));
                } else if (!line && data.length) {
                    yield data.join('\n');
                    data = [];
                }
            }
        }
    } finally {
        reader.cancel().catch(() => {}); /* the server stops where nobody reads */
    }
}

/*
 * An answer to REQUEST (model, messages, ...). ON is called after each piece with
 * {text, artel, first, elapsed, tokens, finish}: what has come so far, the route once it
 * is known, seconds to the first text and in all, and tokens once the server told them.
 * Returns the last of them.
 */
export async function answer(request, signal, on)
{
    const started = performance.now();
    const since = () => (performance.now() - started) / 1000;
    const so = {text: '', artel: null, first: null, elapsed: 0, tokens: null, finish: null};
    const response = await call('/v1/chat/completions', {
        method: 'POST',
        headers: {'Content-Type': 'application/json'},
        signal,
        body: JSON.stringify({...request, stream: true, stream_options: {include_usage: true},
                              artel: {layers: true}}),
    });

    for await (const data of events(response.body)) {
        if (data === '[DONE]')
            return so;
        const chunk = JSON.parse(data);
        const choice = chunk.choices?.[0];
        const text = choice?.delta?.content ?? '';

        if (chunk.error)
            throw new Error(sentence(chunk.error.message || 'it went wrong'));
        so.elapsed = since();
        if (text && so.first === null)
            so.first = so.elapsed;
        so.text += text;
        so.artel = chunk.artel ?? so.artel;
        so.finish = choice?.finish_reason ?? so.finish;
        so.tokens = chunk.usage?.completion_tokens ?? so.tokens;
        on(so);
    }
    throw new Error('The server broke off in the middle of its answer.');
}
