/**
 * Signing in, and renewing the token: from Supabase Auth, pasted, or from a link's fragment.
 *
 * A token is stored in this tab's sessionStorage only, is sent in headers and frames only, and is never put into a URL.
 */

import { Emitter } from './emitter'
import { getItem, parseJson, setItem } from './storage'

export interface Config {
  supabaseUrl: string | null
  anonKey: string | null
}

/** The sign-in methods that the project's Supabase Auth offers. */
export interface SignInMethods {
  password: boolean
  link: boolean
}

interface Grant {
  token: string
  refresh?: string
  /** The staff id that the server reported for this token. */
  staffId?: string
}

interface Claims {
  exp?: number
  sub?: string
  email?: string
  app_metadata?: { staff_id?: string }
}

/** Receives the changes of one person's sign-in. */
export interface AuthListener {
  /** The same person has a new token. */
  onRenewed(): void
  /** The token cannot be renewed and expires soon: `at`, in milliseconds since 1970. */
  onExpiring(at: number): void
  /** The person is signed out, or another person signs in. */
  onSignedOut(): void
}

const TOKEN_KEY = 'gre.token'
/** Storage key of the presence that the user chose; `Desk` writes it. */
export const STATUS_KEY = 'gre.status'
/** Milliseconds, like the constants below. */
const TIMEOUT = 15_000
const RENEW_BEFORE = 60_000
const WARN_BEFORE = 5 * 60_000
const MAX_TIMER = 6 * 3600_000

/** It emits a change when a sign-in ends, and when a link is refused. */
export class Auth extends Emitter {
  private grant: Grant | undefined
  private timer: number | undefined
  private renewing: Promise<boolean> | undefined
  private listener: AuthListener | undefined
  /** The token of a link that was opened while another person is signed in; unused until it is accepted. */
  private offeredGrant: Grant | undefined
  /** Why the sign-in ended, or why a link was refused; empty after a sign-out by the user. */
  problem = ''

  /** `config` is awaited only by requests to Supabase Auth: a stored token works before it arrives. */
  constructor(private readonly config: Promise<Config>) {
    super()
    const stored = getItem(TOKEN_KEY)
    if (stored) this.grant = parseJson<Grant>(stored)
  }

  get token(): string {
    return this.grant?.token ?? ''
  }

  get signedIn(): boolean {
    return this.grant !== undefined
  }

  /** The token's expiry in milliseconds since 1970; undefined if the token has none. */
  get expiresAt(): number | undefined {
    return this.grant && expiryOf(this.grant)
  }

  /** The staff id from the token or from the server, which is authoritative; empty while it is unknown. */
  get staffId(): string {
    return (this.grant && (claimsOf(this.grant).app_metadata?.staff_id ?? this.grant.staffId)) ?? ''
  }

  /** Store the staff id that the server reported. */
  identify(staffId: string): void {
    if (!this.grant) return
    this.grant = { ...this.grant, staffId }
    setItem(TOKEN_KEY, JSON.stringify(this.grant))
  }

  /** Replace the listener. */
  attach(listener: AuthListener): void {
    this.listener = listener
  }

  /** The name in the token of a link for another person; undefined without such a link. */
  get offeredName(): string | undefined {
    return this.offeredGrant && displayNameOf(this.offeredGrant)
  }

  acceptOffer(): void {
    if (this.offeredGrant) this.replaceGrant(this.offeredGrant)
  }

  declineOffer(): void {
    this.offeredGrant = undefined
  }

  /**
   * Read the token from the address's fragment, and replace the fragment by `previousHash`.
   *
   * The token signs in if nobody is signed in, renews the same person's sign-in, and is offered to another person.
   * @returns The error that Supabase Auth put into the fragment, if it did.
   */
  readAddress(previousHash = ''): string | undefined {
    const fragment = new URLSearchParams(location.hash.slice(1))
    const token = fragment.get('access_token') ?? fragment.get('token')
    const error = fragment.get('error_description')
    if (token === null && error === null) return undefined
    history.replaceState(null, '', location.pathname + previousHash)
    if (token === null) {
      this.problem = error ?? ''
      this.emitChange()
      return this.problem
    }
    const refresh = fragment.get('refresh_token')
    const grant: Grant = refresh ? { token, refresh } : { token }
    const expired = this.expiresAt !== undefined && this.expiresAt <= Date.now()
    if (!this.grant || (expired && !this.listener)) this.replaceGrant(grant)
    else if (displayNameOf(grant) === displayNameOf(this.grant) && displayNameOf(grant)) {
      this.storeGrant({ ...(this.grant.staffId && { staffId: this.grant.staffId }), ...grant })
      this.listener?.onRenewed()
    } else if (token !== this.grant.token) this.offeredGrant = grant
    return undefined
  }

  /** Sign in with a pasted token, with or without the prefix `Bearer`. */
  signInWithToken(token: string): void {
    this.replaceGrant({ token: token.trim().replace(/^Bearer\s+/i, '') })
  }

  /** The available sign-in methods; undefined without Supabase Auth (the embedded stack has none). */
  async signInMethods(): Promise<SignInMethods | undefined> {
    const { supabaseUrl, anonKey } = await this.config
    if (!supabaseUrl || !anonKey) return undefined
    try {
      const settings = await this.request<{ external?: { email?: boolean } }>('GET', 'settings')
      const email = settings.external?.email ?? false
      return { password: email, link: email }
    } catch {
      return undefined
    }
  }

  async signInWithPassword(email: string, password: string): Promise<void> {
    this.replaceGrant(grantOf(await this.request('POST', 'token?grant_type=password', { email, password })))
  }

  /** Have Supabase Auth send a link that opens this page with a token in its fragment. */
  async sendSignInLink(email: string): Promise<void> {
    const redirect = encodeURIComponent(`${location.origin}${location.pathname}`)
    await this.request('POST', `otp?redirect_to=${redirect}`, { email, create_user: false })
  }

  /** Renew the token, and return true if that succeeded. Concurrent calls share one request. */
  renew(): Promise<boolean> {
    this.renewing ??= this.requestRenewal().finally(() => (this.renewing = undefined))
    return this.renewing
  }

  /** Sign out, with a `reason` if the user did not ask for it. Drafts and unsent replies stay in storage, for the same person's next sign-in. */
  signOut(reason = ''): void {
    if (this.grant?.refresh) void this.request('POST', 'logout?scope=local', {}, this.token).catch(() => {})
    setItem(STATUS_KEY, null)
    this.endSession(reason)
  }

  /** Schedule the renewal of the token, or the warning before it expires. */
  scheduleRenewal(): void {
    clearTimeout(this.timer)
    const expiresAt = this.expiresAt
    if (expiresAt === undefined) return
    const remaining = expiresAt - Date.now()
    if (this.grant?.refresh) {
      // A token that is valid for less than two minutes is renewed after half of that time.
      const delay = Math.max(1000, remaining - Math.min(RENEW_BEFORE, remaining / 2))
      this.timer = setTimeout(() => (delay > MAX_TIMER ? this.scheduleRenewal() : void this.renew()), Math.min(delay, MAX_TIMER))
    } else if (remaining <= 0) this.endSession('Your sign-in has expired.')
    else if (remaining <= WARN_BEFORE) {
      this.listener?.onExpiring(expiresAt)
      this.timer = setTimeout(() => this.scheduleRenewal(), remaining + 500)
    } else this.timer = setTimeout(() => this.scheduleRenewal(), Math.min(remaining - WARN_BEFORE, MAX_TIMER))
  }

  private async requestRenewal(): Promise<boolean> {
    if (!this.grant) return false // already ended
    const { refresh, staffId } = this.grant
    if (!refresh) {
      const expired = this.expiresAt !== undefined && this.expiresAt <= Date.now() + RENEW_BEFORE
      this.endSession(expired ? 'Your sign-in has expired.' : 'The token was not accepted.')
      return false
    }
    const previous = this.grant
    try {
      const grant = grantOf(await this.request('POST', 'token?grant_type=refresh_token', { refresh_token: refresh }))
      if (this.grant !== previous) return false // signed out, or another person signed in
      this.storeGrant({ ...(staffId && { staffId }), ...grant })
    } catch (error) {
      if (this.grant !== previous) return false
      if (error instanceof AuthError && error.status < 500 && error.status !== 429) {
        this.endSession('Your sign-in has ended.')
        return false
      }
      // No answer: retry. The current token may still be valid for a while.
      clearTimeout(this.timer)
      this.timer = setTimeout(() => void this.renew(), 5000)
      return false
    }
    this.listener?.onRenewed()
    return true
  }

  /** Sign in: the previous person's listener is called first. */
  private replaceGrant(grant: Grant): void {
    this.clearGrant()
    this.problem = ''
    this.storeGrant(grant)
  }

  private storeGrant(grant: Grant): void {
    this.grant = grant
    setItem(TOKEN_KEY, JSON.stringify(grant))
    this.scheduleRenewal()
  }

  /** Delete the token, and tell the listener before anything else runs. */
  private clearGrant(): void {
    clearTimeout(this.timer)
    const { listener } = this
    this.listener = this.grant = this.offeredGrant = undefined
    setItem(TOKEN_KEY, null)
    listener?.onSignedOut()
  }

  private endSession(reason: string): void {
    this.problem = reason
    this.clearGrant()
    this.emitChange()
  }

  private async request<T>(method: string, path: string, body?: unknown, token?: string): Promise<T> {
    const { supabaseUrl, anonKey } = await this.config
    const response = await fetch(`${supabaseUrl}/auth/v1/${path}`, {
      method,
      headers: {
        apikey: anonKey ?? '',
        ...(body !== undefined && { 'Content-Type': 'application/json' }),
        ...(token && { Authorization: `Bearer ${token}` }),
      },
      body: body === undefined ? null : JSON.stringify(body),
      credentials: 'omit',
      signal: AbortSignal.timeout(TIMEOUT),
    }).catch(() => {
      throw new AuthError(0, 'The sign-in service does not answer.')
    })
    const content = (await response.json().catch(() => ({}))) as Record<string, string>
    if (!response.ok) {
      throw new AuthError(response.status, content['msg'] ?? content['error_description'] ?? content['message'] ?? 'Signing in was refused.')
    }
    return content as T
  }
}

class AuthError extends Error {
  constructor(
    readonly status: number,
    text: string,
  ) {
    super(text)
  }
}

function grantOf(content: { access_token?: string; refresh_token?: string }): Grant {
  if (!content.access_token) throw new AuthError(400, 'The sign-in service gave no token.')
  return content.refresh_token ? { token: content.access_token, refresh: content.refresh_token } : { token: content.access_token }
}

function decodeBase64Url(part: string): string {
  try {
    return atob(part.replaceAll('-', '+').replaceAll('_', '/'))
  } catch {
    return ''
  }
}

function claimsOf(grant: Grant): Claims {
  return parseJson<Claims>(decodeBase64Url(grant.token.split('.')[1] ?? '')) ?? {}
}

function expiryOf(grant: Grant): number | undefined {
  const { exp } = claimsOf(grant)
  return exp === undefined ? undefined : exp * 1000
}

/** The name to show for a token: its staff id, e-mail or subject; empty if it has none of them. */
function displayNameOf(grant: Grant): string {
  const { app_metadata: metadata, email, sub } = claimsOf(grant)
  return metadata?.staff_id ?? email ?? sub ?? ''
}
