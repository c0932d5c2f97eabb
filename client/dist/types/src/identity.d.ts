/** Who the person is: tokens from the page, and the name under which a person's texts are kept. */
import type { Person } from './api.js';
import type { Me } from './protocol.js';
/** What a frame or GET /api/gre-chat/me says of a person. */
export type GivenPerson = Person | (Omit<Me, 'ratingEnabled'> & Pick<Person, 'ratingEnabled'>);
/** What is known of a person, and is said now. The same object if that is nothing new. */
export declare const mergePerson: (known: Person | undefined, given: GivenPerson) => Person;
export declare const keyOf: ({ playerId, staffId }: Pick<GivenPerson, 'playerId' | 'staffId'>) => string;
/** The person whom a token names, by what the server reads of it; undefined if it is no JWT, or names nobody. */
export declare function nameIn(token: string): string | undefined;
/** Ask the page for a token; calls at the same time share an answer. Raises ChatError `unreachable` if the page cannot say. */
export declare function createTokens(getToken: (refused: boolean) => string | null | Promise<string | null>): (refused: boolean) => Promise<string | null>;
