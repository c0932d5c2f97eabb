/** What every view of the panel needs. */

import { createContext } from 'preact'
import { useContext } from 'preact/hooks'
import type { Chat } from '../src/index'
import type { Draft } from './draft'
import type { Words } from './words'

export interface PanelContext {
  chat: Chat
  draft: Draft
  words: Words
  language: string
  close: () => void
  /** The page is asked to sign the person in. */
  signIn: () => void
}

export const Context = createContext<PanelContext | undefined>(undefined)

export function usePanel(): PanelContext {
  return useContext(Context)!
}
