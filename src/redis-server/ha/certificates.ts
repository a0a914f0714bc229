/**
 * The certificates of the servers: a private authority, and one server certificate that every host shows. A client
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
import type { Extension, RelativeDistinguishedNames } from 'pkijs'
import { tlsName } from './replication-group.ts'

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
export async function makeAuthority(nowMs: number): Promise<KeyPair> {
  const { BasicConstraints } = await import('pkijs')
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const certificate = await certify({
    ...{ subject: authorityName, publicKey, signingKey: privateKey, nowMs, days: authorityDays },
    extensions: [
      await extension('2.5.29.19', true, new BasicConstraints({ cA: true, pathLenConstraint: 0 })), // of leaves only
      await keyUsage(0b0000_0110, 1), // may sign certificates and revocations
    ],
  })
  return { certificate, key: pemOf(privateKey) }
}

/**
 * A fresh key and certificate for all hosts, good for 825 days from `nowMs`. `names`: more DNS names that it holds for.
 */
export async function makeServerCertificate(
  authority: KeyPair,
  names: readonly string[],
  nowMs: number,
): Promise<KeyPair> {
  const { BasicConstraints, ExtKeyUsage, GeneralName, GeneralNames } = await import('pkijs')
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const all = [...new Set([tlsName, 'localhost', ...names])]
  const dnsNames = new GeneralNames({ names: all.map(value => new GeneralName({ type: 2, value })) })
  // Each server is a client of the others as well.
  const serverAndClient = new ExtKeyUsage({ keyPurposes: ['1.3.6.1.5.5.7.3.1', '1.3.6.1.5.5.7.3.2'] })
  const certificate = await certify({
    ...{ subject: tlsName, publicKey, signingKey: createPrivateKey(authority.key), nowMs, days: serverDays },
    extensions: [
      await extension('2.5.29.19', true, new BasicConstraints()), // no authority
      await keyUsage(0b1000_0000, 7), // signs handshakes
      await extension('2.5.29.37', false, serverAndClient),
      await extension('2.5.29.17', false, dnsNames),
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
  readonly extensions: readonly Extension[]
  readonly nowMs: number
  readonly days: number
}

/** An X.509 certificate, version 3 (RFC 5280). The library is loaded with the first: most never make one. */
async function certify({ subject, publicKey, signingKey, extensions, nowMs, days }: Request): Promise<string> {
  const { BitString, Integer, OctetString } = await import('asn1js')
  const { AlgorithmIdentifier, AuthorityKeyIdentifier, Certificate, PublicKeyInfo, Time } = await import('pkijs')
  const at = (ms: number) => new Time({ type: ms < firstGeneralizedMs ? 0 : 1, value: new Date(ms) })
  const ecdsaWithSha256 = new AlgorithmIdentifier({ algorithmId: '1.2.840.10045.4.3.2' })
  const issuerKeyId = new AuthorityKeyIdentifier({
    keyIdentifier: new OctetString({ valueHex: keyId(createPublicKey(signingKey)) }),
  })
  const made = new Certificate({
    version: 2,
    // Positive, and at most 20 bytes long.
    serialNumber: new Integer({ valueHex: Buffer.concat([Buffer.from([0x4d]), randomBytes(15)]) }),
    signature: ecdsaWithSha256,
    signatureAlgorithm: ecdsaWithSha256,
    issuer: await commonName(authorityName),
    notBefore: at(nowMs - backdatedMs),
    notAfter: at(nowMs + days * dayMs),
    subject: await commonName(subject),
    subjectPublicKeyInfo: PublicKeyInfo.fromBER(derOf(publicKey)),
    extensions: [
      ...extensions,
      await extension('2.5.29.14', false, new OctetString({ valueHex: keyId(publicKey) })),
      await extension('2.5.29.35', false, issuerKeyId),
    ],
  })
  made.tbsView = new Uint8Array(made.encodeTBS().toBER())
  made.signatureValue = new BitString({ valueHex: sign('sha256', made.tbsView, signingKey) })
  return new X509Certificate(Buffer.from(made.toSchema().toBER())).toString()
}

/** Later years are written with four digits. */
const firstGeneralizedMs = Date.UTC(2050, 0)

interface Encoded {
  toBER(): ArrayBuffer
}

async function extension(
  extnID: string,
  critical: boolean,
  value: Encoded | { toSchema(): Encoded },
): Promise<Extension> {
  const { Extension } = await import('pkijs')
  return new Extension({ extnID, critical, extnValue: ('toSchema' in value ? value.toSchema() : value).toBER() })
}

async function keyUsage(bits: number, unusedBits: number): Promise<Extension> {
  const { BitString } = await import('asn1js')
  return await extension('2.5.29.15', true, new BitString({ valueHex: Buffer.from([bits]), unusedBits }))
}

async function commonName(value: string): Promise<RelativeDistinguishedNames> {
  const { Utf8String } = await import('asn1js')
  const { AttributeTypeAndValue, RelativeDistinguishedNames } = await import('pkijs')
  const named = new AttributeTypeAndValue({ type: '2.5.4.3', value: new Utf8String({ value }) })
  return new RelativeDistinguishedNames({ typesAndValues: [named] })
}

const derOf = (key: KeyObject): Buffer => key.export({ type: 'spki', format: 'der' })
const keyId = (key: KeyObject): Buffer => createHash('sha1').update(derOf(key)).digest()
const pemOf = (key: KeyObject): string => key.export({ type: 'pkcs8', format: 'pem' }).toString()
