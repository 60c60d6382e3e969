/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Light or dark, before anything is painted: as the system is, or as was chosen here.
 */
'use strict';
(() => {
    const themes = ['auto', 'light', 'dark'];
    const medium = {auto: '(prefers-color-scheme: dark)', light: 'not all', dark: 'all'};
    let theme = 'auto';

    function use(name)
    {
        theme = themes.includes(name) ? name : 'auto';
        document.getElementById('dark').media = medium[theme];
        document.documentElement.style.colorScheme = theme === 'auto' ? 'light dark' : theme;
    }

    function stored()
    {
        try {
            return localStorage.getItem('artel.theme');
        } catch {
            return null; /* storage is off: the system's */
        }
    }

    use(stored());
    document.addEventListener('DOMContentLoaded', () => {
        const button = document.getElementById('theme');
        const tell = () => {
            button.textContent = 'Theme: ' + theme;
        };

        tell();
        button.addEventListener('click', () => {
            use(themes[(themes.indexOf(theme) + 1) % themes.length]);
            tell();
            try {
                localStorage.setItem('artel.theme', theme);
            } catch { /* it holds until the page is closed */
            }
        });
    });
})();
