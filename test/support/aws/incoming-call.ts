/** A request to AWS as it came in: which service, which action, and what is needed to hand it on unchanged. */
import type { IncomingMessage } from 'node:http'
import type { Caller } from './ec2-calls.ts'
import { type Params, parseQuery } from './query.ts'

export interface IncomingCall extends Caller {
  readonly service: string
  readonly action: string
  /** Of the query protocol; empty in others. */
  readonly params: Params
  /** `AWSPriceListService.GetProducts`: the JSON protocols name their action so. */
  readonly target: string | undefined
  readonly request: {
    readonly method: string
    readonly path: string
    readonly headers: NodeJS.Dict<string | string[]>
    readonly body: Buffer
  }
}

export async function readCall(request: IncomingMessage): Promise<IncomingCall> {
  const chunks: Buffer[] = []
  for await (const chunk of request) chunks.push(chunk as Buffer)
  const body = Buffer.concat(chunks)
  const { method = '', url: path = '/', headers } = request
  const credential = /Credential=([^/]*)\/\d+\/([^/]+)\/([^/]+)\//.exec(headers.authorization ?? '')
  const [, accessKeyId = 'test', region = 'us-east-1', service = 'unknown'] = credential ?? []
  const isForm = headers['content-type']?.startsWith('application/x-www-form-urlencoded') ?? false
  const params = isForm ? parseQuery(body.toString()) : {}
  const target = headers['x-amz-target'] as string | undefined
  const action = params.Action ?? target?.split('.').at(-1) ?? `${method} ${path}`
  return { service, action, params, target, region, accessKeyId, request: { method, path, headers, body } }
}
