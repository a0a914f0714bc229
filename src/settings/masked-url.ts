/** URLs as they may be shown: who logs in with them, and what is signed in their query, stays out. */

/** `https://user:pass@host/path?X-Amz-Signature=…` → `https://********@host/path?********`; any number, separated by commas. */
export const maskUrls = (text: string): string =>
  text
    .replace(/([a-z][a-z0-9+.-]*:\/\/)[^/?#,\s]*@/gi, '$1********@')
    .replace(/([a-z][a-z0-9+.-]*:\/\/[^?#,\s]*\?)[^#,\s"]+/gi, '$1********')
