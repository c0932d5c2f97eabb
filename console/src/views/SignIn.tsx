/** Signing in: with e-mail and password or a link where the project has Supabase Auth, else with a token. */

import { useEffect, useState } from 'preact/hooks'
import type { Auth, Ways } from '../auth'

type Shown = 'looking' | 'email' | 'token'

interface Given {
  auth: Auth
  why: string
  /** One came here on purpose. Otherwise no field takes the focus: the keys that come now were meant for another. */
  calm: boolean
  onEntered: () => void
}

export function SignIn({ auth, why, calm, onEntered }: Given) {
  const [ways, setWays] = useState<Ways>()
  const [shown, setShown] = useState<Shown>('looking')
  const [busy, setBusy] = useState(false)
  const [error, setError] = useState('')
  const [sent, setSent] = useState('')
  useEffect(() => {
    void auth.ways().then((found) => {
      setWays(found)
      setShown(found?.password || found?.link ? 'email' : 'token')
    })
  }, [auth])

  const submit = async (event: SubmitEvent): Promise<void> => {
    event.preventDefault()
    const form = new FormData(event.currentTarget as HTMLFormElement)
    const field = (name: string): string => String(form.get(name) ?? '').trim()
    const byLink = (event.submitter as HTMLButtonElement | null)?.value === 'link'
    setBusy(true)
    setError('')
    setSent('')
    try {
      if (shown === 'token') auth.paste(field('token'))
      else if (byLink) await auth.link(field('email'))
      else await auth.password(field('email'), String(form.get('password') ?? ''))
      if (byLink) setSent(`A link is on its way to ${field('email')}. Open it in this browser.`)
      else if (auth.signedIn) onEntered() // (One that has expired already was told so.)
    } catch (refusal) {
      setError(refusal instanceof Error ? refusal.message : 'Signing in did not work.')
    }
    setBusy(false)
  }

  const told = error || why
  return (
    <main class="sign-in">
      <form data-testid="sign-in" onSubmit={submit} aria-busy={busy || shown === 'looking'}>
        <h1>Staff console</h1>
        <p class="quiet">{shown === 'token' ? 'Paste your access token, or ask your administrator for a sign-in link.' : 'Sign in to see and answer your players.'}</p>
        {told !== '' && <p class="error" role="alert" data-testid="sign-in-error">{told}</p>}
        {sent !== '' && <p class="notice" role="status">{sent}</p>}
        {shown === 'email' && (
          <>
            <label>E-mail<input name="email" type="email" autocomplete="username" required autofocus={calm} /></label>
            {ways?.password && <label>Password<input name="password" type="password" autocomplete="current-password" /></label>}
            <div class="row">
              <button class="primary" type="submit" value="password" disabled={busy}>Sign in</button>
              {ways?.link && <button type="submit" value="link" disabled={busy}>Send me a link</button>}
            </div>
          </>
        )}
        {shown === 'token' && (
          <>
            <label>Access token<textarea name="token" rows={5} spellcheck={false} autocomplete="off" required autofocus={calm} /></label>
            <div class="row"><button class="primary" type="submit" disabled={busy}>Sign in</button></div>
          </>
        )}
        {shown === 'looking' && <p class="quiet" role="status">One moment …</p>}
        {shown === 'email' && <button class="plain" type="button" onClick={() => setShown('token')}>Use a token instead</button>}
        {shown === 'token' && ways && <button class="plain" type="button" onClick={() => setShown('email')}>Use e-mail instead</button>}
      </form>
    </main>
  )
}
