/** Light, dark, or as the system has it. */

import { keep, kept } from './kept'

export type Theme = 'auto' | 'light' | 'dark'

const KEY = 'gre.theme'
const NEXT: Record<Theme, Theme> = { auto: 'light', light: 'dark', dark: 'auto' }

export function theme(): Theme {
  const found = kept(KEY, true)
  return found === 'light' || found === 'dark' ? found : 'auto'
}

export function applyTheme(): void {
  document.documentElement.dataset['theme'] = theme()
}

export function nextTheme(): void {
  keep(KEY, NEXT[theme()], true)
  applyTheme()
}
