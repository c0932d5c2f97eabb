/** The sign-in form: e-mail with password or link if the project has Supabase Auth, else a token. */

import { useEffect, useState } from 'preact/hooks'
import type { Auth, SignInMethods } from '../auth'

type Form = 'loading' | 'email' | 'token'

interface Props {
  auth: Auth
  /** False if the sign-in ended without the user's doing: their next keys were meant for another field. */
  focusField: boolean
  onSignedIn: () => void
}

export function SignIn({ auth, focusField, onSignedIn }: Props) {
  const [methods, setMethods] = useState<SignInMethods>()
  const [form, setForm] = useState<Form>('loading')
  const [busy, setBusy] = useState(false)
  const [error, setError] = useState('')
  const [confirmation, setConfirmation] = useState('')
  useEffect(() => {
    void auth.signInMethods().then((available) => {
      setMethods(available)
      setForm(available?.password || available?.link ? 'email' : 'token')
    })
  }, [auth])

  const submit = async (event: SubmitEvent): Promise<void> => {
    event.preventDefault()
    const data = new FormData(event.currentTarget as HTMLFormElement)
    const field = (name: string): string => String(data.get(name) ?? '').trim()
    const byLink = (event.submitter as HTMLButtonElement | null)?.value === 'link'
    setBusy(true)
    setError('')
    setConfirmation('')
    try {
      if (form === 'token') auth.signInWithToken(field('token'))
      else if (byLink) await auth.sendSignInLink(field('email'))
      else await auth.signInWithPassword(field('email'), String(data.get('password') ?? ''))
      if (byLink) setConfirmation(`A link is on its way to ${field('email')}. Open it in this browser.`)
      else if (auth.signedIn) onSignedIn() // else `problem` reports an expired token
    } catch (caught) {
      setError(caught instanceof Error ? caught.message : 'Signing in did not work.')
    }
    setBusy(false)
  }

  const errorText = error || auth.problem
  return (
    <main class="sign-in">
      <form data-testid="sign-in" onSubmit={submit} aria-busy={busy || form === 'loading'}>
        <h1>Staff console</h1>
        <p class="quiet">{form === 'token' ? 'Paste your access token, or ask your administrator for a sign-in link.' : 'Sign in to see and answer your players.'}</p>
        {errorText !== '' && <p class="error" role="alert" data-testid="sign-in-error">{errorText}</p>}
        {confirmation !== '' && <p class="notice" role="status">{confirmation}</p>}
        {form === 'email' && (
          <>
            <label>E-mail<input name="email" type="email" autocomplete="username" required autofocus={focusField} /></label>
            {methods?.password && <label>Password<input name="password" type="password" autocomplete="current-password" /></label>}
            <div class="row">
              <button class="primary" type="submit" value="password" disabled={busy}>Sign in</button>
              {methods?.link && <button type="submit" value="link" disabled={busy}>Send me a link</button>}
            </div>
          </>
        )}
        {form === 'token' && (
          <>
            <label>Access token<textarea name="token" rows={5} spellcheck={false} autocomplete="off" required autofocus={focusField} /></label>
            <div class="row"><button class="primary" type="submit" disabled={busy}>Sign in</button></div>
          </>
        )}
        {form === 'loading' && <p class="quiet" role="status">One moment …</p>}
        {form === 'email' && <button class="plain" type="button" onClick={() => setForm('token')}>Use a token instead</button>}
        {form === 'token' && methods && <button class="plain" type="button" onClick={() => setForm('email')}>Use e-mail instead</button>}
      </form>
    </main>
  )
}
