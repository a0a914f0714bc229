/**
 * The identity document of an EC2 instance, as its metadata service signs it (dynamic/instance-identity/rsa2048: PKCS
 * #7 with the document inside). Only the certificate of the region that the settings name counts, never one that comes
 * along.
 */
import { readFile } from 'node:fs/promises'
import { fromBER } from 'asn1js'
import { Certificate, ContentInfo, SignedData } from 'pkijs'
import { Type } from 'typebox'
import { Value } from 'typebox/value'
import { StartupError } from '../errors.ts'

const Document = Type.Object({
  instanceId: Type.String(),
  accountId: Type.String(),
  region: Type.String(),
  pendingTime: Type.String(),
})

export interface IdentityDocument {
  readonly instanceId: string
  readonly accountId: string
  readonly region: string
  /** When the instance was launched or started, in ms since the epoch. */
  readonly pendingAt: number
}

const pem = /-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----/g

/** @throws StartupError when the file cannot be read, or holds no certificate */
export async function readIdentityCertificates(file: string): Promise<Certificate[]> {
  try {
    const text = await readFile(file, 'utf8')
    const found = [...text.matchAll(pem)].map(([, body = '']) => Certificate.fromBER(Buffer.from(body, 'base64')))
    if (found.length > 0) return found
    throw new Error('it holds no certificate in PEM')
  } catch (error) {
    throw new StartupError(`MUSTER_EC2_IDENTITY_CERT_FILE ${file}: ${(error as Error).message}`, { cause: error })
  }
}

/**
 * @param signed the PKCS #7 structure, base64, with or without its lines of PEM
 * @returns undefined when it is none, or none of these certificates has signed it
 */
export async function verifyIdentityDocument(
  signed: string,
  certificates: readonly Certificate[],
): Promise<IdentityDocument | undefined> {
  try {
    const der = Buffer.from(signed.replaceAll(/-----[A-Z0-9 ]+-----/g, ''), 'base64')
    const parsed = fromBER(der)
    if (parsed.offset === -1) return undefined
    const data = new SignedData({ schema: new ContentInfo({ schema: parsed.result }).content })
    // In the place of those that came along.
    data.certificates = [...certificates]
    if (!(await data.verify({ signer: 0, checkChain: false }))) return undefined
    const content = data.encapContentInfo.eContent?.getValue()
    const document: unknown = JSON.parse(Buffer.from(content ?? new ArrayBuffer(0)).toString())
    if (!Value.Check(Document, document)) return undefined
    const pendingAt = Date.parse(document.pendingTime)
    return Number.isNaN(pendingAt) ? undefined : { ...document, pendingAt }
  } catch {
    // Whatever is wrong with it: it comes from outside, and proves nothing.
    return undefined
  }
}
