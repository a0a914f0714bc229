/** What the front itself asks of moto in the query protocol, in the name of a caller or in its own. */
import { httpCall } from './http-call.ts'
import type { Moto } from './moto.ts'
import { type Params, printQuery } from './query.ts'
import { errorReply, passOn, Refusal, type Reply } from './reply.ts'
import { type Credentials, formType, type Scope, signedHeaders } from './signature.ts'
import { parseXml, textOf, type XmlNode } from './xml.ts'

/** Who calls: as far as its Authorization header tells. */
export interface Caller {
  readonly region: string
  readonly accessKeyId: string
}

export class Ec2Calls {
  /** Secret keys by access key: with IAM on, a request that the front rewrites must be signed anew. */
  readonly secrets = new Map<string, string>()
  readonly #moto: Moto

  constructor(moto: Moto) {
    this.#moto = moto
  }

  /** Whether this caller's requests can be signed: its secret key is known, or nobody asks for it. */
  canSignFor({ accessKeyId }: Caller): boolean {
    const { admin } = this.#moto
    return admin === undefined || admin.accessKeyId === accessKeyId || this.secrets.has(accessKeyId)
  }

  /** As the caller, whose policies must allow it. The reply as moto gave it, refusals too. */
  async asCaller(caller: Caller, params: Params, service = 'ec2'): Promise<Reply> {
    const { accessKeyId, region } = caller
    if (!this.canSignFor(caller)) {
      throw new Refusal('AuthFailure', `The front knows no secret key of ${accessKeyId}: see front.know()`, 401)
    }
    const secretAccessKey = this.secrets.get(accessKeyId) ?? this.#moto.admin?.secretAccessKey ?? ''
    return await this.#send({ region, service }, params, { accessKeyId, secretAccessKey })
  }

  /**
   * As one who may do everything.
   * @throws Refusal what moto refuses
   */
  async asAdmin(caller: Caller, params: Params): Promise<XmlNode> {
    // The access key tells moto the account, so it stays the caller's while IAM is off.
    const credentials = this.#moto.admin ?? { accessKeyId: caller.accessKeyId, secretAccessKey: '' }
    return parsed(await this.#send({ region: caller.region, service: 'ec2' }, params, credentials))
  }

  async #send(scope: Scope, params: Params, credentials: Credentials): Promise<Reply> {
    const version: Params = scope.service === 'ec2' ? { Version: '2016-11-15' } : {}
    const body = printQuery({ ...version, ...params })
    const signed = signedHeaders(body, new URL(this.#moto.url).host, scope, credentials)
    const headers = { ...signed, 'content-type': formType }
    const reply = passOn(await httpCall(this.#moto.url, { method: 'POST', headers, body }))
    if (scope.service !== 'ec2' || reply.outcome !== 'AccessDenied') return reply
    // EC2 has its own word for it.
    return errorReply(new Refusal('UnauthorizedOperation', refusalOf(reply).message, 403), false)
  }
}

/** @throws Refusal when the reply is an error */
export function parsed(reply: Reply): XmlNode {
  if (reply.status < 400) return parseXml(reply.body.toString())
  throw refusalOf(reply)
}

export function refusalOf(reply: Reply): Refusal {
  const isXml = /^\s*<\?xml/.test(reply.body.toString())
  const error = isXml ? parseXml(reply.body.toString()) : undefined
  const message = textOf(error, 'Errors', 'Error', 'Message') ?? reply.body.toString().slice(0, 500)
  return new Refusal(reply.outcome, message, reply.status)
}
