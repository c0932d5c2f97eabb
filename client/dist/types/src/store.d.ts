/** Who listens, and the snapshots that they read: each is the same object until something in it changes. */
export interface Store {
    /** Something changed: listeners are called once, in a microtask. */
    changed(): void;
    subscribe(listener: () => void): () => void;
    /** The snapshot with this name; `compute` is called at most once after each change. */
    read<T extends object>(name: string, compute: () => T): T;
}
/** `onUse` is called with true before the first listener is added, and with false after the last one has left. */
export declare function createStore(onUse: (used: boolean) => void): Store;
/** The known value if a fresh one has the same content, one level deep. */
export declare function keep<T extends object>(known: T | undefined, fresh: T): T;
