/** @jsxImportSource preact */
/** The messages. The log stays at its end while the person is there, and where it is while somebody reads above. */

import { Component, createRef } from 'preact'
import { type PanelContext, usePanel } from '../context'
import { dayName } from '../format'
import type { Row } from '../rows'
import type { Conversation } from '../../src/index'
import { Icon } from './Icon'
import { MessageRow, UnsentRow } from './MessageRow'

interface Props {
  rows: readonly Row[]
  conversation: Conversation
  /** The latest session is closed. */
  closed: boolean
  onEnd: (atEnd: boolean) => void
}

/** CSS pixels from the end at which a reader counts as being there. */
const NEAR = 40

export function Log(props: Props) {
  return <Scrolling {...props} panel={usePanel()} />
}

class Scrolling extends Component<Props & { panel: PanelContext }, { atEnd: boolean }> {
  override state = { atEnd: true }
  private readonly box = createRef<HTMLDivElement>()
  private readonly list = createRef<HTMLDivElement>()
  private readonly resized = new ResizeObserver(() => this.state.atEnd && this.toEnd())

  override componentDidMount(): void {
    this.resized.observe(this.box.current!)
    this.resized.observe(this.list.current!)
    this.toEnd()
  }

  override componentWillUnmount(): void {
    this.resized.disconnect()
  }

  override getSnapshotBeforeUpdate(): number {
    const box = this.box.current!
    return box.scrollHeight - box.scrollTop
  }

  override componentDidUpdate(before: Props, _: unknown, fromEnd: number): void {
    const { rows } = this.props
    const last = rows.at(-1)
    const written = last?.kind === 'unsent' && last.key !== before.rows.at(-1)?.key
    const older = before.rows.length > 0 && rows[1]?.key !== before.rows[1]?.key
    if (this.state.atEnd || written) this.toEnd()
    else if (older) this.box.current!.scrollTop = this.box.current!.scrollHeight - fromEnd
  }

  private toEnd(): void {
    const box = this.box.current!
    box.scrollTop = box.scrollHeight
  }

  private readonly onScroll = (): void => {
    const box = this.box.current!
    if (!box.clientHeight) return // hidden: it is at neither end
    const atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < NEAR
    if (atEnd === this.state.atEnd) return
    this.setState({ atEnd })
    this.props.onEnd(atEnd)
  }

  override render() {
    const { rows, conversation, closed, panel } = this.props
    const { chat, words, language } = panel
    const { state, hasOlder, loadingOlder, error } = conversation
    // A chat that has stopped loads nothing: the notice says why.
    const loading = state === 'loading' && chat.status().connection !== 'stopped'
    return (
      <div class="log-frame">
        <div ref={this.box} class="log" part="log" role="log" aria-label={words.log} aria-busy={loading || loadingOlder} tabIndex={0} onScroll={this.onScroll}>
          <div ref={this.list}>
            {hasOlder && <button type="button" class="older" part="action" aria-disabled={loadingOlder} onClick={() => !loadingOlder && void chat.loadOlder().catch(() => {})}>{words.older}</button>}
            {loading && <p class="hint">{words.loading}</p>}
            {state === 'complete' && !rows.length && <p class="hint" part="empty" dir="auto">{words.empty}</p>}
            {rows.map((row) =>
              row.kind === 'day' ? <p key={row.key} class="day" part="day">{dayName(row.at, Date.now(), language, words)}</p>
              : row.kind === 'message' ? <MessageRow {...row} key={row.key} words={words} language={language} />
              : <UnsentRow {...row} key={row.key} words={words} />,
            )}
            {state === 'healing' && <p class="hint" role="status">{words.healing}</p>}
            {state === 'failed' && <p class="hint error" role="alert">{words.loadFailed} {error?.message} <button type="button" part="action" onClick={() => chat.connect()}>{words.again}</button></p>}
            {closed && state === 'complete' && <p class="hint" dir="auto">{words.closed}</p>}
          </div>
        </div>
        {!this.state.atEnd && <button type="button" class="newer" aria-label={words.newer} title={words.newer} onClick={() => this.toEnd()}><Icon name="down" /></button>}
      </div>
    )
  }
}
