/** `/widget.js`: a classic script, so that pages of other origins need nothing but `<script src async>`. */

import { define } from './element'

// Names of the built files; vite.loader.config.js puts them in.
declare const CORE: string
declare const PANEL: string

const script = (document.currentScript ?? document.querySelector('script[src*="/widget.js"]')) as HTMLScriptElement
const base = new URL('.', script.src).href
let attempts = 0

/** Import a built file. After a failure some browsers answer from memory, so each further attempt has another address. */
async function load(name: string): Promise<never> {
  const query = attempts ? `?${attempts}` : ''
  try {
    return (await import(/* @vite-ignore */ `${base}widget/${name}${query}`)) as never
  } catch (error) {
    attempts += 1
    throw error
  }
}

define({ core: () => load(CORE), panel: () => load(PANEL) }, base.slice(0, -1))
