/**
 * The certificates of the copies: a private authority, and one server certificate that every host shows. Who connects
 * verifies it by its name (`muster-redis`), so an address may change without a new certificate.
 */
import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  randomBytes,
  sign,
  X509Certificate,
} from 'node:crypto'
import { tlsName } from './copies.ts'
import { bits, boolean, context, integer, octets, oid, sequence, set, text, time } from './der.ts'

export interface KeyPair {
  /** PEM. */
  readonly certificate: string
  /** PEM, PKCS #8. */
  readonly key: string
}

const dayMs = 24 * 60 * 60_000
export const authorityDays = 3653
export const serverDays = 825
/** A clock that lags must not find a certificate of the future. */
const backdatedMs = dayMs

const authorityName = 'Muster Redis authority'

/** A fresh authority, good for ten years from `nowMs`. */
export function makeAuthority(nowMs: number): KeyPair {
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const certificate = certify({
    ...{ subject: authorityName, publicKey, signingKey: privateKey, nowMs, days: authorityDays },
    extensions: [
      extension('2.5.29.19', true, sequence(boolean(true), integer(Buffer.from([0])))), // an authority, of leaves only
      extension('2.5.29.15', true, bits(Buffer.from([0b0000_0110]), 1)), // may sign certificates and revocations
    ],
  })
  return { certificate, key: pemOf(privateKey) }
}

/** A fresh key and certificate for all hosts, good for 825 days from `nowMs`. `names`: more DNS names that it holds for. */
export function makeServerCertificate(authority: KeyPair, names: readonly string[], nowMs: number): KeyPair {
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const all = [...new Set([tlsName, 'localhost', ...names])]
  const certificate = certify({
    ...{ subject: tlsName, publicKey, signingKey: createPrivateKey(authority.key), nowMs, days: serverDays },
    extensions: [
      extension('2.5.29.19', true, sequence()), // no authority
      extension('2.5.29.15', true, bits(Buffer.from([0b1000_0000]), 7)), // signs handshakes
      // Among the copies each is a client as well.
      extension('2.5.29.37', false, sequence(oid('1.3.6.1.5.5.7.3.1'), oid('1.3.6.1.5.5.7.3.2'))),
      extension('2.5.29.17', false, sequence(...all.map(name => context(2, false, Buffer.from(name, 'ascii'))))),
    ],
  })
  return { certificate, key: pemOf(privateKey) }
}

/** DNS names that a certificate holds for. */
export const namesOf = (certificate: string): string[] =>
  (new X509Certificate(certificate).subjectAltName ?? '')
    .split(', ')
    .filter(name => name.startsWith('DNS:'))
    .map(name => name.slice(4))

/** Milliseconds since 1970 until which a certificate holds. */
export const expiresAtMs = (certificate: string): number => Date.parse(new X509Certificate(certificate).validTo)

interface Request {
  readonly subject: string
  readonly publicKey: KeyObject
  /** Of the authority. */
  readonly signingKey: KeyObject
  readonly extensions: readonly Buffer[]
  readonly nowMs: number
  readonly days: number
}

const ecdsaWithSha256 = sequence(oid('1.2.840.10045.4.3.2'))

/** An X.509 certificate, version 3 (RFC 5280). */
function certify({ subject, publicKey, signingKey, extensions, nowMs, days }: Request): string {
  const issuerKey = createPublicKey(signingKey)
  const toSign = sequence(
    context(0, true, integer(Buffer.from([2]))),
    // Positive, and at most 20 bytes long.
    integer(Buffer.concat([Buffer.from([0x4d]), randomBytes(15)])),
    ecdsaWithSha256,
    commonName(authorityName),
    sequence(time(nowMs - backdatedMs), time(nowMs + days * dayMs)),
    commonName(subject),
    derOf(publicKey),
    context(
      3,
      true,
      sequence(
        ...extensions,
        extension('2.5.29.14', false, octets(keyId(publicKey))),
        extension('2.5.29.35', false, sequence(context(0, false, keyId(issuerKey)))),
      ),
    ),
  )
  const whole = sequence(toSign, ecdsaWithSha256, bits(sign('sha256', toSign, signingKey)))
  const lines = whole.toString('base64').match(/.{1,64}/g) ?? []
  return ['-----BEGIN CERTIFICATE-----', ...lines, '-----END CERTIFICATE-----', ''].join('\n')
}

const extension = (id: string, isCritical: boolean, value: Buffer): Buffer =>
  sequence(oid(id), ...(isCritical ? [boolean(true)] : []), octets(value))
const commonName = (name: string): Buffer => sequence(set(sequence(oid('2.5.4.3'), text(name))))
const derOf = (key: KeyObject): Buffer => key.export({ type: 'spki', format: 'der' })
const keyId = (key: KeyObject): Buffer => createHash('sha1').update(derOf(key)).digest()
const pemOf = (key: KeyObject): string => key.export({ type: 'pkcs8', format: 'pem' }).toString()
