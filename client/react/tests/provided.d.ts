import 'vitest'

declare module 'vitest' {
  interface ProvidedContext {
    /** The version of React that the tests run with: "18" or "19". */
    react: string
  }
}
