/** The whole page: the sign-in, or the desk of who is signed in. */

import { useCallback, useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks'
import type { Auth } from '../auth'
import { Desk } from '../desk'
import { useChanges } from '../emitter'
import { focused, listen } from '../keys'
import { go, isSignIn, route, sessionHref } from '../route'
import { Banners } from './Banners'
import { ConversationView } from './Conversation'
import { Header } from './Header'
import { HealthView } from './Health'
import { Help } from './Help'
import { Leaving } from './Leaving'
import { QueueView } from './Queue'
import { SignIn } from './SignIn'
import { Toast } from './Toast'

export function App({ auth, refused }: { auth: Auth; refused: string | undefined }) {
  const [desk, setDesk] = useState<Desk | undefined>(() => (auth.signedIn ? new Desk(auth) : undefined))
  const [why, setWhy] = useState(refused ?? '')
  /** Whether the sign-in ended by itself, maybe while one was typing. */
  const [ended, setEnded] = useState(false)
  const enter = useCallback(() => {
    setWhy('')
    setEnded(false)
    setDesk(new Desk(auth))
  }, [auth])
  // (A layout effect, since the desk below begins in an effect, and may find at once that its token is over.)
  useLayoutEffect(() => {
    auth.onEnded = (text) => {
      setWhy(text)
      setEnded(true)
      setDesk(undefined)
    }
  }, [auth])
  useEffect(() => {
    // A link with a token was opened in this very tab.
    const moved = (event: HashChangeEvent): void => {
      const before = auth.signedIn
      const error = auth.takeFromAddress(before ? new URL(event.oldURL).hash : '')
      if (error !== undefined) {
        setWhy(error)
        desk?.complain(error)
      } else if (!before && auth.signedIn) enter()
      else desk?.changed()
    }
    addEventListener('hashchange', moved)
    return () => removeEventListener('hashchange', moved)
  }, [auth, desk, enter])
  if (!desk) return <SignIn auth={auth} why={why} calm={!ended} onEntered={enter} />
  const leave = (): void => {
    auth.signOut()
    setWhy('')
    setEnded(false)
    setDesk(undefined)
    go('')
  }
  const accept = (): void => {
    auth.accept()
    if (!auth.signedIn) return
    go('', true)
    enter()
  }
  return <DeskView key={desk.number} desk={desk} onSignOut={leave} onAccept={accept} />
}

interface Given {
  desk: Desk
  onSignOut: () => void
  /** Sign in as whom a link offers. */
  onAccept: () => void
}

function DeskView({ desk, onSignOut, onAccept }: Given) {
  useChanges(desk)
  const [at, setAt] = useState(route)
  const [helping, setHelping] = useState(false)
  const [leaving, setLeaving] = useState(false)
  const search = useRef<HTMLInputElement>(null)
  const reply = useRef<HTMLTextAreaElement>(null)
  const session = at.view === 'desk' ? at.session : undefined

  useEffect(() => {
    const moved = (): void => {
      if (!isSignIn(location.hash)) setAt(route())
    }
    // (What is not sent outlives a reload, but not the tab.)
    const unloading = (event: Event): void => {
      if (desk.outbox.count) event.preventDefault()
    }
    addEventListener('hashchange', moved)
    addEventListener('beforeunload', unloading)
    // Waiting times go on while nothing happens.
    const ticking = setInterval(desk.changed, 15_000)
    desk.start()
    return () => {
      removeEventListener('hashchange', moved)
      removeEventListener('beforeunload', unloading)
      clearInterval(ticking)
      desk.stop()
    }
  }, [desk])

  useEffect(() => {
    if (at.view === 'desk') desk.show(at.session)
  }, [desk, at])

  const step = (by: 1 | -1): void => {
    const next = desk.neighbour(by)
    if (next) go(sessionHref(next.id), true)
  }
  useEffect(
    () =>
      listen({
        step,
        search: () => search.current?.focus(),
        reply: () => reply.current?.focus(),
        help: () => setHelping(true),
        leave() {
          const field = focused()
          if (field && field === search.current && desk.queue.search) desk.queue.show(desk.queue.filter, '')
          else if (field) field.blur()
          else if (location.hash) go('', true)
        },
      }),
    [desk],
  )

  const skip = (event: Event): void => {
    // (The address says what is open; a jump must not change it.)
    event.preventDefault()
    const target = reply.current ?? search.current ?? document.getElementById('main')
    target?.focus()
  }
  const { waiting } = desk.queue
  const unsent = desk.outbox.failedCount
  useEffect(() => {
    document.title = `${unsent ? `${unsent} not sent · ` : ''}${waiting ? `(${waiting}) ` : ''}Staff console`
  }, [waiting, unsent])
  const signOut = (): void => {
    if (desk.outbox.count || desk.drafts.count) setLeaving(true)
    else onSignOut()
  }

  return (
    <div class={`page ${session ? 'has-session' : ''}`}>
      <a class="skip" href="#main" onClick={skip}>Skip to the content</a>
      <Header desk={desk} view={at.view} onSignOut={signOut} onHelp={() => setHelping(true)} />
      <Banners desk={desk} onAccept={onAccept} />
      {at.view === 'health' ? (
        <HealthView desk={desk} />
      ) : (
        <main class="desk" id="main">
          <h1 class="unseen">Conversations</h1>
          <QueueView desk={desk} searchRef={search} />
          <ConversationView desk={desk} replyRef={reply} onNext={() => step(1)} />
        </main>
      )}
      <Help open={helping} onClose={() => setHelping(false)} />
      {leaving && <Leaving desk={desk} onStay={() => setLeaving(false)} onLeave={onSignOut} />}
      <div class="unseen" aria-live="polite" data-testid="announcer">{desk.notices.announcement}</div>
      <Toast notices={desk.notices} />
    </div>
  )
}
