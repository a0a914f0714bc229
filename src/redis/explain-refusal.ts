/** Errors at connecting that no waiting mends, each with what to do: told at once instead of after the time limit. */

interface Refusal {
  readonly pattern: RegExp
  readonly explain: (reason: string) => string
}

const refusals: readonly Refusal[] = [
  {
    pattern: /(NOAUTH|WRONGPASS|NOPERM|ERR invalid password|ERR AUTH).*\(Sentinel /,
    explain: reason =>
      `cannot be found: its Sentinels do not let us in: ${reason}. The user and password of MUSTER_REDIS_URL are used ` +
      'for them too; put "?sentinelUsername=…&sentinelPassword=…" at its end where theirs differ, and an empty ' +
      '"?sentinelPassword=" where they ask for none.',
  },
  {
    pattern: /^(Ready check failed: )?(NOAUTH|WRONGPASS|NOPERM|ERR invalid password|ERR AUTH)/,
    explain: reason => `does not let us in: ${reason}. Put the right user and password into MUSTER_REDIS_URL.`,
  },
  {
    pattern: /cluster support disabled/,
    explain: () => 'is no Redis Cluster: leave "+cluster" out of MUSTER_REDIS_URL.',
  },
  {
    pattern: /altnames|Hostname\/IP does not match/,
    explain: reason =>
      `has a certificate for another name: ${reason}. Set MUSTER_REDIS_TLS_NAME to a name that its certificate bears.`,
  },
  {
    pattern: /self[- ]signed certificate|unable to (verify the first|get (local )?issuer) certificate/i,
    explain: reason =>
      `has a certificate of an unknown authority: ${reason}. Set MUSTER_REDIS_CA_FILE to the file of that authority.`,
  },
  {
    pattern: /certificate has expired/,
    explain: () => 'has a certificate that is no longer valid. Give it a new one.',
  },
]

/** What to tell the user, as a completion of "Redis at … "; undefined when waiting may help. */
export function explainRefusal(error: Error): string | undefined {
  const { message } = (error as { lastNodeError?: Error }).lastNodeError ?? error
  return refusals.find(({ pattern }) => pattern.test(message))?.explain(message)
}
