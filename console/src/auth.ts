/**
 * Who is signed in: tokens from Supabase Auth, or one that was pasted or came in a link's fragment.
 *
 * A token is kept in this tab's sessionStorage alone, is sent in headers and frames only, and never gets into an address.
 */

import { keep, kept, parsed } from './kept'

export interface Config {
  supabaseUrl: string | null
  anonKey: string | null
}

/** What the project's Supabase Auth offers. */
export interface Ways {
  password: boolean
  link: boolean
}

interface Grant {
  token: string
  refresh?: string
  /** Who it is, as the server said. */
  staffId?: string
}

interface Claims {
  exp?: number
  sub?: string
  email?: string
  app_metadata?: { staff_id?: string }
}

/** The session of the page that belongs to who is signed in. */
export interface AuthListener {
  /** There is a new token of the same person. */
  renewed(): void
  /** The end of a token that cannot be renewed comes near. */
  ending(at: number): void
  /** Nobody is signed in any more, or somebody else. */
  over(): void
}

const KEY = 'gre.token'
/** The presence that staff chose, which the desk keeps. */
export const STATUS = 'gre.status'
const WITHIN = 15_000
const RENEW_BEFORE = 60_000
const WARN_BEFORE = 5 * 60_000
const LONGEST_TIMER = 6 * 3600_000

export class Auth {
  private grant: Grant | undefined
  private timer: number | undefined
  private renewing: Promise<boolean> | undefined
  private listener: AuthListener | undefined
  /** From a link that was opened while somebody else is signed in: it counts when it is accepted. */
  private offered: Grant | undefined
  /** Called when nothing but signing in again helps, with what to tell. */
  onEnded: (why: string) => void = () => {}

  /** Nobody who is signed in has to wait for `config`. */
  constructor(private readonly config: Promise<Config>) {
    const stored = kept(KEY)
    if (stored) this.grant = parsed<Grant>(stored)
  }

  get token(): string {
    return this.grant?.token ?? ''
  }

  get signedIn(): boolean {
    return this.grant !== undefined
  }

  /** When the token ends, in milliseconds since 1970; undefined if it does not say. */
  get endsAt(): number | undefined {
    return this.grant && endOf(this.grant)
  }

  /** Whose drafts and replies are this person's: the staff id, as far as it is known. The server has the last word. */
  get staffId(): string {
    return (this.grant && (claimsOf(this.grant).app_metadata?.staff_id ?? this.grant.staffId)) ?? ''
  }

  /** The server says who it is. */
  identify(staffId: string): void {
    if (!this.grant) return
    this.grant = { ...this.grant, staffId }
    keep(KEY, JSON.stringify(this.grant))
  }

  /** Tell somebody from now on, and nobody else. */
  attach(listener: AuthListener): void {
    this.listener = listener
  }

  /** The name in a link that would sign somebody else in; undefined if there is none. */
  get offer(): string | undefined {
    return this.offered && nameOf(this.offered)
  }

  accept(): void {
    if (this.offered) this.begin(this.offered)
  }

  decline(): void {
    this.offered = undefined
  }

  /**
   * Take the token out of the address, where a link put it, and leave `before` there; what Supabase Auth says
   * against it, if it does. It signs in where nobody is, renews the same person's sign-in, and is otherwise offered.
   */
  takeFromAddress(before = ''): string | undefined {
    const given = new URLSearchParams(location.hash.slice(1))
    const token = given.get('access_token') ?? given.get('token')
    const error = given.get('error_description')
    if (token === null && error === null) return undefined
    history.replaceState(null, '', location.pathname + before)
    if (token === null) return error ?? undefined
    const refresh = given.get('refresh_token')
    const grant: Grant = refresh ? { token, refresh } : { token }
    const over = this.endsAt !== undefined && this.endsAt <= Date.now()
    if (!this.grant || (over && !this.listener)) this.begin(grant)
    else if (nameOf(grant) === nameOf(this.grant) && nameOf(grant)) {
      this.take({ ...(this.grant.staffId && { staffId: this.grant.staffId }), ...grant })
      this.listener?.renewed()
    } else if (token !== this.grant.token) this.offered = grant
    return undefined
  }

  /** Sign in with a token as it is. */
  paste(token: string): void {
    this.begin({ token: token.trim().replace(/^Bearer\s+/i, '') })
  }

  /** What can be done to sign in; undefined where there is no Supabase Auth (the embedded stack). */
  async ways(): Promise<Ways | undefined> {
    const { supabaseUrl, anonKey } = await this.config
    if (!supabaseUrl || !anonKey) return undefined
    try {
      const said = await this.ask<{ external?: { email?: boolean } }>('GET', 'settings')
      const email = said.external?.email ?? false
      return { password: email, link: email }
    } catch {
      return undefined
    }
  }

  async password(email: string, password: string): Promise<void> {
    this.begin(granted(await this.ask('POST', 'token?grant_type=password', { email, password })))
  }

  /** Have a link sent that leads back here with a token in its fragment. */
  async link(email: string): Promise<void> {
    const back = encodeURIComponent(`${location.origin}${location.pathname}`)
    await this.ask('POST', `otp?redirect_to=${back}`, { email, create_user: false })
  }

  /** Get a new token; whether there is one. Several who ask at once get the same answer. */
  renew(): Promise<boolean> {
    this.renewing ??= this.refresh().finally(() => (this.renewing = undefined))
    return this.renewing
  }

  /** Forget who is signed in. What that person has written and not sent is the drafts' and the outbox's. */
  signOut(): void {
    if (this.grant?.refresh) void this.ask('POST', 'logout?scope=local', {}, this.token).catch(() => {})
    this.drop()
    keep(STATUS, null)
  }

  /** Begin to watch the clock for a token that was kept. */
  watch(): void {
    clearTimeout(this.timer)
    const ends = this.endsAt
    if (ends === undefined) return
    const left = ends - Date.now()
    if (this.grant?.refresh) {
      // A short-lived token is renewed at half of its life.
      const pause = Math.max(1000, left - Math.min(RENEW_BEFORE, left / 2))
      this.timer = setTimeout(() => (pause > LONGEST_TIMER ? this.watch() : void this.renew()), Math.min(pause, LONGEST_TIMER))
    } else if (left <= 0) this.end('Your sign-in has expired.')
    else if (left <= WARN_BEFORE) {
      this.listener?.ending(ends)
      this.timer = setTimeout(() => this.watch(), left + 500)
    } else this.timer = setTimeout(() => this.watch(), Math.min(left - WARN_BEFORE, LONGEST_TIMER))
  }

  private async refresh(): Promise<boolean> {
    if (!this.grant) return false // what ended it has been told
    const { refresh, staffId } = this.grant
    if (!refresh) {
      const over = this.endsAt !== undefined && this.endsAt <= Date.now() + RENEW_BEFORE
      this.end(over ? 'Your sign-in has expired.' : 'The token was not accepted.')
      return false
    }
    const asked = this.grant
    try {
      const grant = granted(await this.ask('POST', 'token?grant_type=refresh_token', { refresh_token: refresh }))
      if (this.grant !== asked) return false // somebody else has signed in, or this one out
      this.take({ ...(staffId && { staffId }), ...grant })
    } catch (error) {
      if (this.grant !== asked) return false
      if (error instanceof Refusal && error.status < 500 && error.status !== 429) {
        this.end('Your sign-in has ended.')
        return false
      }
      // Not answered: once more in a moment. The token may be good for a while yet.
      clearTimeout(this.timer)
      this.timer = setTimeout(() => void this.renew(), 5000)
      return false
    }
    this.listener?.renewed()
    return true
  }

  /** Somebody signs in: what belongs to the one before ends first. */
  private begin(grant: Grant): void {
    this.drop()
    this.take(grant)
  }

  private take(grant: Grant): void {
    this.grant = grant
    keep(KEY, JSON.stringify(grant))
    this.watch()
  }

  /** Nobody is signed in; and what belonged to who was, ends before anything else happens. */
  private drop(): void {
    clearTimeout(this.timer)
    const { listener } = this
    this.listener = this.grant = this.offered = undefined
    keep(KEY, null)
    listener?.over()
  }

  private end(why: string): void {
    this.drop()
    this.onEnded(why)
  }

  private async ask<T>(method: string, path: string, body?: unknown, token?: string): Promise<T> {
    const { supabaseUrl, anonKey } = await this.config
    const answer = await fetch(`${supabaseUrl}/auth/v1/${path}`, {
      method,
      headers: {
        apikey: anonKey ?? '',
        ...(body !== undefined && { 'Content-Type': 'application/json' }),
        ...(token && { Authorization: `Bearer ${token}` }),
      },
      body: body === undefined ? null : JSON.stringify(body),
      credentials: 'omit',
      signal: AbortSignal.timeout(WITHIN),
    }).catch(() => {
      throw new Refusal(0, 'The sign-in service does not answer.')
    })
    const said = (await answer.json().catch(() => ({}))) as Record<string, string>
    if (!answer.ok) {
      throw new Refusal(answer.status, said['msg'] ?? said['error_description'] ?? said['message'] ?? 'Signing in was refused.')
    }
    return said as T
  }
}

class Refusal extends Error {
  constructor(
    readonly status: number,
    text: string,
  ) {
    super(text)
  }
}

function granted(said: { access_token?: string; refresh_token?: string }): Grant {
  if (!said.access_token) throw new Refusal(400, 'The sign-in service gave no token.')
  return said.refresh_token ? { token: said.access_token, refresh: said.refresh_token } : { token: said.access_token }
}

function decoded(part: string): string {
  try {
    return atob(part.replaceAll('-', '+').replaceAll('_', '/'))
  } catch {
    return ''
  }
}

function claimsOf(grant: Grant): Claims {
  return parsed<Claims>(decoded(grant.token.split('.')[1] ?? '')) ?? {}
}

function endOf(grant: Grant): number | undefined {
  const { exp } = claimsOf(grant)
  return exp === undefined ? undefined : exp * 1000
}

/** Who a token says it is, for people to read; empty if it does not. */
function nameOf(grant: Grant): string {
  const { app_metadata: own, email, sub } = claimsOf(grant)
  return own?.staff_id ?? email ?? sub ?? ''
}
