/** Signature Version 4 of a form that is posted to `/`: needed where the front rewrites a request and moto's IAM is on. */
import { createHash, createHmac } from 'node:crypto'

export interface Credentials {
  readonly accessKeyId: string
  readonly secretAccessKey: string
}

export interface Scope {
  readonly region: string
  readonly service: string
}

export const formType = 'application/x-www-form-urlencoded; charset=utf-8'

/** The headers that make moto accept this body as coming from the holder of these credentials. */
export function signedHeaders(body: string, host: string, { region, service }: Scope, credentials: Credentials) {
  const date = new Date().toISOString().replaceAll(/[-:]|\.\d+/g, '')
  const day = date.slice(0, 8)
  const names = 'content-type;host;x-amz-date'
  const canonical = ['POST', '/', '', `content-type:${formType}`, `host:${host}`, `x-amz-date:${date}`, '', names]
  const scope = `${day}/${region}/${service}/aws4_request`
  const toSign = ['AWS4-HMAC-SHA256', date, scope, sha256([...canonical, sha256(body)].join('\n'))].join('\n')
  const key = [day, region, service, 'aws4_request'].reduce<Buffer | string>(
    (secret, part) => hmac(secret, part),
    `AWS4${credentials.secretAccessKey}`,
  )
  const signature = hmac(key, toSign).toString('hex')
  const credential = `Credential=${credentials.accessKeyId}/${scope}`
  return {
    host,
    'content-type': formType,
    'x-amz-date': date,
    authorization: `AWS4-HMAC-SHA256 ${credential}, SignedHeaders=${names}, Signature=${signature}`,
  }
}

const sha256 = (text: string): string => createHash('sha256').update(text).digest('hex')
const hmac = (key: Buffer | string, text: string): Buffer => createHmac('sha256', key).update(text).digest()
