/**
 * What a child process may know of the environment: named here, or by MUSTER_PASS_ENV. Everything else stays with its
 * parent, since what a handler can read, whoever submits jobs to it may be able to read.
 */

type Environment = Readonly<Record<string, string | undefined>>

const names = new Set([
  ...['PATH', 'HOME', 'USER', 'LOGNAME', 'SHELL', 'LANG', 'LANGUAGE', 'TZ', 'TMPDIR', 'TMP', 'TEMP'],
  ...['NO_COLOR', 'FORCE_COLOR', 'TERM', 'CI', 'LD_LIBRARY_PATH', 'SSL_CERT_FILE', 'SSL_CERT_DIR'],
  ...['HTTP_PROXY', 'HTTPS_PROXY', 'NO_PROXY', 'ALL_PROXY', 'http_proxy', 'https_proxy', 'no_proxy', 'all_proxy'],
  ...['MUSTER_HANDLERS', 'MUSTER_INSTANCE_ID', 'MUSTER_QUEUE', 'MUSTER_LOG_LEVEL'],
])
/** NODE_AUTH_TOKEN is what npm logs in with. */
const isNodeOption = (name: string): boolean => name.startsWith('NODE_') && !/TOKEN|SECRET|PASSWORD|KEY/.test(name)

/** @param passed names from MUSTER_PASS_ENV */
export function childEnvironment(environment: Environment, passed: readonly string[]): Record<string, string> {
  const isAllowed = (name: string): boolean =>
    names.has(name) || name.startsWith('LC_') || isNodeOption(name) || passed.includes(name)
  return Object.fromEntries(
    Object.entries(environment).flatMap(([name, value]) =>
      value !== undefined && isAllowed(name) ? [[name, value]] : [],
    ),
  )
}

/** @param secrets variables of settings that are secret @returns sentences that say what to mend */
export function validatePassEnv(passed: readonly string[], secrets: readonly string[]): string[] {
  const malformed = passed.filter(name => !/^[A-Za-z_][A-Za-z0-9_]*$/.test(name))
  const secret = passed.filter(name => secrets.includes(name))
  return [
    ...malformed.map(
      name => `MUSTER_PASS_ENV holds "${name}", which is no name of a variable; separate names by commas`,
    ),
    ...secret.map(name => `MUSTER_PASS_ENV names ${name}, a secret that no handler may have`),
  ]
}
