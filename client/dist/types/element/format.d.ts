/** Times and sizes in the element's language; times are in the browser's time zone, those of opening in the house's. */
import type { Words } from './words';
/** The time of day of an ISO time. */
export declare function clock(at: string, language: string): string;
/** A key of the local day of an ISO time. */
export declare function dayKey(at: string | number): string;
/** The name of a day: today, yesterday, or the date, with the year if it is another one. `now` is in milliseconds. */
export declare function dayName(at: string, now: number, language: string, words: Words): string;
/** Bytes in kB or MB, at least 1 kB. */
export declare function size(bytes: number, language: string): string;
/**
 * The day and the time of day of an ISO time in the house's time zone: "tomorrow", "09:00". The time names its zone where the
 * person's clock shows another one. `now` is in milliseconds.
 */
export declare function appointment(at: string, now: number, timezone: string | null, language: string): {
    day: string;
    time: string;
};
