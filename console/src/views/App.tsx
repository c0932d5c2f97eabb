/** The page: the sign-in form, or the desk of the signed-in person. */

import { useCallback, useEffect, useRef, useState } from 'preact/hooks'
import type { Auth } from '../auth'
import { Desk } from '../desk'
import { useChanges } from '../emitter'
import { focusedElement, listenForKeys } from '../keys'
import { currentRoute, isSignIn, navigate, SEARCH_HREF, sessionHref } from '../route'
import { Banners } from './Banners'
import type { ComposerHandle } from './Composer'
import { ConversationView } from './Conversation'
import { Header } from './Header'
import { HealthView } from './Health'
import { Help } from './Help'
import { LoadedView } from './LoadedView'
import { QueueView } from './Queue'
import { SearchView } from './Search'
import { SettingsView } from './Settings'
import { SignIn } from './SignIn'
import { SignOutDialog } from './SignOutDialog'
import { Toast } from './Toast'

/** These views are loaded when they are opened. */
const loadLive = async () => (await import('../reports/LiveView')).LiveView
const loadReports = async () => (await import('../reports/ReportsView')).ReportsView

export function App({ auth }: { auth: Auth }) {
  const [desk, setDesk] = useState<Desk | undefined>(() => (auth.signedIn ? new Desk(auth) : undefined))
  useChanges(auth)
  const enter = useCallback(() => setDesk(new Desk(auth)), [auth])
  useEffect(() => {
    // A link with a token may be opened in this tab.
    const onHashChange = (event: HashChangeEvent): void => {
      const wasSignedIn = auth.signedIn
      const error = auth.readAddress(wasSignedIn ? new URL(event.oldURL).hash : '')
      if (error !== undefined) desk?.showError(error)
      else if (!wasSignedIn && auth.signedIn) enter()
      else desk?.emitChange()
    }
    addEventListener('hashchange', onHashChange)
    return () => removeEventListener('hashchange', onHashChange)
  }, [auth, desk, enter])
  // The desk is closed when the sign-in ends. If that was a problem, the user may be typing: no field takes the focus.
  if (!desk || desk.scope.closed) return <SignIn auth={auth} focusField={!desk || !auth.problem} onSignedIn={enter} />
  const signOut = (): void => {
    auth.signOut()
    setDesk(undefined)
    navigate('')
  }
  const accept = (): void => {
    auth.acceptOffer()
    if (!auth.signedIn) return
    navigate('', true)
    enter()
  }
  return <DeskView key={desk.key} desk={desk} onSignOut={signOut} onAccept={accept} />
}

interface Props {
  desk: Desk
  onSignOut: () => void
  /** Sign in with the token that a link offers. */
  onAccept: () => void
}

function DeskView({ desk, onSignOut, onAccept }: Props) {
  useChanges(desk)
  const [currentView, setCurrentView] = useState(currentRoute)
  const [helpOpen, setHelpOpen] = useState(false)
  const [signOutOpen, setSignOutOpen] = useState(false)
  const search = useRef<HTMLInputElement>(null)
  const messageSearch = useRef<HTMLInputElement>(null)
  const composer = useRef<ComposerHandle>(null)
  const session = currentView.view === 'desk' ? currentView.session : undefined

  useEffect(() => {
    const onHashChange = (): void => {
      if (!isSignIn(location.hash)) setCurrentView(currentRoute())
    }
    // Unsent replies survive a reload, but not the closing of the tab; bytes that are not uploaded survive neither.
    const onBeforeUnload = (event: Event): void => {
      if (desk.outgoing.count || desk.files.uploads.isUploading) event.preventDefault()
    }
    addEventListener('hashchange', onHashChange)
    addEventListener('beforeunload', onBeforeUnload)
    // Waiting times grow without any change of state.
    const refreshTimer = setInterval(desk.emitChange, 15_000)
    desk.start()
    return () => {
      removeEventListener('hashchange', onHashChange)
      removeEventListener('beforeunload', onBeforeUnload)
      clearInterval(refreshTimer)
      desk.stop()
    }
  }, [desk])

  useEffect(() => {
    if (currentView.view === 'desk') desk.openSession(currentView.session, currentView.seq)
    else desk.viewers.open(undefined)
  }, [desk, currentView])

  const step = (direction: 1 | -1): void => {
    const next = desk.adjacentSession(direction)
    if (next) navigate(sessionHref(next.id), true)
  }
  useEffect(
    () =>
      listenForKeys({
        step,
        search: () => (search.current ?? messageSearch.current)?.focus(),
        searchMessages: () => (messageSearch.current ? messageSearch.current.focus() : navigate(SEARCH_HREF)),
        reply: () => composer.current?.focus('reply'),
        note: () => composer.current?.focus('note'),
        help: () => setHelpOpen(true),
        leave() {
          const field = focusedElement()
          if (field && field === search.current && desk.queue.search) desk.queue.setFilter(desk.queue.filter, '')
          // The focus on the whole view is no field to leave.
          else if (field && field.id !== 'main') field.blur()
          else if (location.hash) navigate('', true)
        },
      }),
    [desk],
  )

  const skipToContent = (event: Event): void => {
    // The fragment is the route: the skip link must not change it.
    event.preventDefault()
    if (composer.current) composer.current.focus('reply')
    else (search.current ?? document.getElementById('main'))?.focus()
  }
  const { waitingCount } = desk.queue
  const failedCount = desk.outgoing.failed.length
  useEffect(() => {
    document.title = `${failedCount ? `${failedCount} not sent · ` : ''}${waitingCount ? `(${waitingCount}) ` : ''}Staff console`
  }, [waitingCount, failedCount])
  const requestSignOut = (): void => {
    if (desk.outgoing.count || desk.drafts.count) setSignOutOpen(true)
    else onSignOut()
  }

  return (
    <div class={`page ${session ? 'has-session' : ''}`}>
      <a class="skip" href="#main" onClick={skipToContent}>Skip to the content</a>
      <Header desk={desk} view={currentView.view} onSignOut={requestSignOut} onHelp={() => setHelpOpen(true)} />
      <Banners desk={desk} onAccept={onAccept} />
      {currentView.view === 'search' && <SearchView desk={desk} fieldRef={messageSearch} />}
      {currentView.view === 'live' && <LoadedView key="live" load={loadLive} desk={desk} parameters="" />}
      {currentView.view === 'reports' && <LoadedView key="reports" load={loadReports} desk={desk} parameters={currentView.parameters} />}
      {currentView.view === 'health' && <HealthView desk={desk} />}
      {currentView.view === 'settings' && <SettingsView desk={desk} />}
      {currentView.view === 'desk' && (
        <main class="desk" id="main">
          <h1 class="visually-hidden">Conversations</h1>
          <QueueView desk={desk} searchRef={search} />
          <ConversationView desk={desk} composer={composer} onNext={() => step(1)} />
        </main>
      )}
      <Help open={helpOpen} onClose={() => setHelpOpen(false)} />
      {signOutOpen && <SignOutDialog desk={desk} onStay={() => setSignOutOpen(false)} onSignOut={onSignOut} />}
      <div class="visually-hidden" aria-live="polite" data-testid="announcer">{desk.notices.announcement}</div>
      <Toast notices={desk.notices} open={session} />
    </div>
  )
}
