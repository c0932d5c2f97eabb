/** The channels of a link. Links of one pusher-js object share them; the page's own subscriptions are left alone. */
import type { PusherClient } from './types.js';
type Handlers = Record<string, (data: any) => void>;
export interface ChannelsOwner {
    /** A subscription has begun or ended: true if all have begun. Called for each that begins. */
    changed(all: boolean): void;
    /** pusher-js does not ask again by itself. */
    refused(error: {
        status?: number;
    }): void;
}
export declare function createChannels(pusher: PusherClient, events: Handlers, owner: ChannelsOwner): {
    /** Be subscribed to these, and to no others. */
    join(names: readonly string[]): void;
    /** Ask for those that were refused. */
    subscribe(): void;
    /** The connection is lost; pusher-js subscribes again after the next one. */
    lost(): void;
    clear: () => void;
};
export {};
