/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The start of the page: the tabs, and the names that may be asked for.
 */
import {startChat} from './chat.js';
import {startCompare} from './compare.js';
import {byId, el, setExperts, trouble} from './dom.js';
import {showMixture} from './mixture.js';
import {getJson} from './server.js';

const views = ['chat', 'compare', 'mixture'];

function show(view)
{
    for (const v of views) {
        const tab = byId(`tab-${v}`);

        tab.setAttribute('aria-selected', String(v === view));
        tab.tabIndex = v === view ? 0 : -1;
        byId(`panel-${v}`).hidden = v !== view;
    }
    if (view === 'mixture')
        showMixture();
}

/* Arrow keys go round the tabs, as everywhere; the address remembers which is open. */
function startTabs()
{
    const go = view => {
        history.replaceState(null, '', view === 'chat' ? '/' : `#${view}`);
        show(view);
    };

    views.forEach((v, i) => {
        const tab = byId(`tab-${v}`);

        tab.addEventListener('click', () => go(v));
        tab.addEventListener('keydown', e => {
            const to = {ArrowRight: i + 1, ArrowLeft: i + views.length - 1, Home: 0,
                        End: views.length - 1}[e.key];

            if (to === undefined)
                return;
            e.preventDefault();
            go(views[to % views.length]);
            byId(`tab-${views[to % views.length]}`).focus();
        });
    });
    const fromAddress = () => {
        const view = location.hash.slice(1);

        show(views.includes(view) ? view : 'chat');
    };
    addEventListener('hashchange', fromAddress);
    fromAddress();
}

const words = {auto: 'auto (routed)', base: 'base (no expert)'};

function offer(select, models, wanted)
{
    const before = select.value || wanted;

    select.replaceChildren(...models.map(m => el('option', {value: m.id},
                                                 words[m.artel?.kind] ?? m.id)));
    select.value = models.some(m => m.id === before) ? before : models[0]?.id;
}

async function start()
{
    try {
        const models = (await getJson('/v1/models')).data;
        const kinds = kind => models.filter(m => m.artel?.kind === kind).map(m => m.id);

        setExperts(kinds('expert'));
        offer(byId('expert'), models, kinds('auto')[0]);
        offer(byId('left'), models, kinds('base')[0]);
        offer(byId('right'), models, kinds('auto')[0]);
        trouble('');
    } catch (e) {
        trouble(`${e.message} Reload the page to try again.`);
    }
    startChat(); /* after the names, for what was kept is painted in their colours */
    startCompare();
    startTabs();
    document.documentElement.dataset.ready = 'yes';
}

start();
