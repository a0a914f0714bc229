/**
 * The secrets of the servers: a password for each user, the private authority, and the server certificate. One file,
 * readable by its owner alone; its authority's key belongs on no host.
 */
import { randomBytes } from 'node:crypto'
import { readFile, writeFile } from 'node:fs/promises'
import { StartupError } from '../../errors.ts'
import { writeFileAtomic } from '../../write-file-atomic.ts'
import { makeAuthority, makeServerCertificate, namesOf } from './certificates.ts'

export const userNames = ['muster', 'operator', 'replica', 'sentinel', 'peer'] as const
export type UserName = (typeof userNames)[number]

export interface Secrets {
  readonly version: 1
  readonly passwords: Readonly<Record<UserName, string>>
  readonly caCertificate: string
  readonly caKey: string
  readonly serverCertificate: string
  readonly serverKey: string
}

/** Fresh secrets; `names`: more DNS names for the server certificate. */
export async function makeSecrets(names: readonly string[], nowMs: number): Promise<Secrets> {
  const authority = await makeAuthority(nowMs)
  const server = await makeServerCertificate(authority, names, nowMs)
  // base64url: it stands in URLs, in redis.conf and in ACL files as it is.
  const passwords = Object.fromEntries(userNames.map(name => [name, randomBytes(24).toString('base64url')]))
  return {
    version: 1,
    passwords: passwords as Record<UserName, string>,
    caCertificate: authority.certificate,
    caKey: authority.key,
    serverCertificate: server.certificate,
    serverKey: server.key,
  }
}

/** The same secrets with a new server certificate, for the same names and `names`. */
export async function renewCertificate(secrets: Secrets, names: readonly string[], nowMs: number): Promise<Secrets> {
  const authority = { certificate: secrets.caCertificate, key: secrets.caKey }
  const server = await makeServerCertificate(authority, [...namesOf(secrets.serverCertificate), ...names], nowMs)
  return { ...secrets, serverCertificate: server.certificate, serverKey: server.key }
}

/**
 * Reads a file of secrets.
 * @throws StartupError when it cannot be read or lacks something; what it holds is not repeated
 */
export async function readSecrets(file: string): Promise<Secrets> {
  let found: Partial<Secrets>
  try {
    found = JSON.parse(await readFile(file, 'utf8')) as Partial<Secrets>
  } catch (error) {
    // A parser's message quotes the text, which is secret.
    const why = error instanceof SyntaxError ? 'it is not JSON' : (error as Error).message
    throw new StartupError(`The secrets in ${file} cannot be read: ${why}.`)
  }
  const missing = [
    ...(['caCertificate', 'caKey', 'serverCertificate', 'serverKey'] as const).filter(key => !isText(found?.[key])),
    ...userNames.filter(name => !isText(found?.passwords?.[name])).map(name => `passwords.${name}`),
  ]
  if (found?.version !== 1) missing.unshift('version 1')
  if (missing.length > 0) throw new StartupError(`The secrets in ${file} lack ${missing.join(', ')}.`)
  const odd = userNames.filter(name => !/^[\w-]{16,}$/.test(found.passwords?.[name] ?? ''))
  if (odd.length > 0)
    throw new StartupError(
      `In ${file} the passwords of ${odd.join(', ')} must have 16 or more letters, digits, "-" and "_".`,
    )
  return found as Secrets
}

/**
 * Writes secrets into a file that is not there yet.
 * @throws StartupError when it is: overwriting secrets locks all hosts out
 */
export async function writeSecrets(file: string, secrets: Secrets): Promise<void> {
  await writeFile(file, text(secrets), { mode: 0o600, flag: 'wx' }).catch((error: NodeJS.ErrnoException) => {
    throw new StartupError(
      error.code === 'EEXIST'
        ? `${file} exists, and secrets are not overwritten. Use it, or name another file.`
        : `${file} cannot be written: ${error.message}`,
      { cause: error },
    )
  })
}

/** Puts renewed secrets in the place of a file, at once. */
export async function replaceSecrets(file: string, secrets: Secrets): Promise<void> {
  await writeFileAtomic(file, text(secrets))
}

const text = (secrets: Secrets): string => `${JSON.stringify(secrets, null, 2)}\n`
const isText = (value: unknown): boolean => typeof value === 'string' && value !== ''
