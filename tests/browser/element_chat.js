// A chat for the tests of <gre-chat>: it has the client's interface, and the test says what it contains.
// `fake.set({…})` changes snapshots, `fake.calls` are the calls so far.
globalThis.fake = (() => {
  const listeners = new Set()
  const calls = []
  let uploads = 0
  let state = {
    status: { connection: 'live', me: { role: 'player', playerId: 29, displayName: 'Asha', chatEnabled: true } },
    messages: { messages: [], unsent: [], state: 'complete', hasOlder: false, loadingOlder: false, readUpTo: {} },
    sessions: [],
    unread: 0,
    typing: [],
    staffOnline: [],
  }
  const emit = () => queueMicrotask(() => listeners.forEach((listener) => listener()))
  const set = (changes) => {
    state = { ...state, ...changes }
    emit()
  }
  const conversation = (changes) => set({ messages: { ...state.messages, ...changes } })
  const act =
    (name, result = () => undefined) =>
    (...args) => {
      calls.push([name, ...args])
      return result(...args)
    }
  const chat = {
    subscribe(listener) {
      listeners.add(listener)
      return () => listeners.delete(listener)
    },
    status: () => state.status,
    messages: () => state.messages,
    sessions: () => state.sessions,
    unread: () => state.unread,
    typing: () => state.typing,
    staffOnline: () => state.staffOnline,
    desk: () => state.desk,
    connect: act('connect'),
    close: act('close'),
    send: act('send', (text, { files }) => {
      const unsent = { id: `u${calls.length}`, text, files, createdAt: new Date().toISOString(), state: 'waiting' }
      conversation({ unsent: [...state.messages.unsent, unsent] })
      return unsent
    }),
    retry: act('retry'),
    discard: act('discard', (id) => {
      const found = state.messages.unsent.find((item) => item.id === id)
      conversation({ unsent: state.messages.unsent.filter((item) => item.id !== id) })
      return found
    }),
    loadOlder: act('loadOlder', async () => {}),
    markRead: act('markRead', () => set({ unread: 0 })),
    setTyping: act('setTyping'),
    upload: act('upload', () => {
      const changed = new Set()
      const upload = {
        id: `f${(uploads += 1)}`,
        state: 'uploading',
        progress: 0.4,
        done: Promise.resolve(),
        subscribe: (listener) => (changed.add(listener), () => changed.delete(listener)),
        retry: act('retryUpload', () => upload.to('uploading')),
        describe: act('describe', () => upload.to('uploading')),
        cancel: act('cancelUpload'),
        to(next, error) {
          Object.assign(upload, { state: next, error })
          changed.forEach((listener) => listener())
        },
      }
      return (fake.upload = upload)
    }),
    url: act('url', async (id, variant) => `https://files.example/${id}/${variant}`),
    rate: act('rate', async () => {
      if (fake.rateError) throw Object.assign(new Error('no'), { code: fake.rateError })
    }),
    closeSession: act('closeSession', async () => {}),
  }
  return { chat, calls, set, conversation, of: (name) => calls.filter(([called]) => called === name).map(([, ...args]) => args) }
})()
