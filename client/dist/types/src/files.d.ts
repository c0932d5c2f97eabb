/** The uploads of this page. Their code, in more.ts, is loaded with the first one. */
import type { Upload, UploadOptions } from './api.js';
import type { More } from './more.js';
export declare function createFiles(code: () => Promise<More>, changed: () => void): {
    uploads: Map<string, Upload>;
    upload: (file: Blob & {
        name?: string;
    }, options?: UploadOptions) => Upload;
};
