/**
 * The instance metadata service of one simulated instance, version 2 only: a token first, and 401 without. Found by the
 * SDKs and by ours through AWS_EC2_METADATA_SERVICE_ENDPOINT. What it does not know is 404, as there.
 */
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

/** What an instance is, as moto has it. */
export interface InstanceFacts {
  readonly instanceId: string
  readonly type: string
  readonly zone: string
  readonly region: string
  readonly market: 'spot' | 'on-demand'
  readonly imageId: string
  readonly accountId: string
  readonly architecture: string
  readonly privateIp: string
  readonly launchTime: Date
  readonly tags: Readonly<Record<string, string>>
  /** MetadataOptions.InstanceMetadataTags: tags are in the metadata only where this was asked for. */
  readonly showsTags: boolean
  /** Name of the instance profile; the role is taken to have the same name. */
  readonly profile: string | undefined
}

const maxTtlSeconds = 21_600
const roleKeysMs = 6 * 3_600_000

export class Imds {
  /** When a Spot instance is terminated; undefined while there is no notice. */
  interruptedAt: Date | undefined
  /** Since when there is a rebalance recommendation. */
  rebalanceSince: Date | undefined
  /** Paths that were asked for, without the token's. */
  readonly asked: string[] = []
  readonly #facts: InstanceFacts
  readonly #tokens = new Map<string, number>()
  readonly #server = createServer((request, response) => this.#answer(request, response))

  constructor(facts: InstanceFacts) {
    this.#facts = facts
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`
  }

  async open(): Promise<void> {
    this.#server.listen(0, '127.0.0.1')
    await once(this.#server, 'listening')
  }

  async close(): Promise<void> {
    if (!this.#server.listening) return
    this.#server.close()
    this.#server.closeAllConnections()
    await once(this.#server, 'close')
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    const path = decodeURIComponent((request.url ?? '/').replace(/\?.*$/, '')).replace(/\/+$/, '')
    const [status, value = ''] = path === '/latest/api/token' ? this.#giveToken(request) : this.#show(request, path)
    const isText = typeof value === 'string'
    response.writeHead(status, { 'content-type': isText ? 'text/plain' : 'application/json' })
    response.end(isText ? value : JSON.stringify(value))
  }

  #giveToken({ method, headers }: IncomingMessage): [status: number, token?: string] {
    const ttlSeconds = Number(headers['x-aws-ec2-metadata-token-ttl-seconds'])
    if (method !== 'PUT') return [405]
    // A request that came through a proxy is not the instance's own.
    if (headers['x-forwarded-for'] !== undefined) return [403]
    if (!Number.isInteger(ttlSeconds) || ttlSeconds < 1 || ttlSeconds > maxTtlSeconds) return [400]
    const token = randomBytes(24).toString('base64')
    this.#tokens.set(token, performance.now() + ttlSeconds * 1000)
    return [200, token]
  }

  #show({ method, headers }: IncomingMessage, path: string): [status: number, value?: string | object] {
    const validUntil = this.#tokens.get(String(headers['x-aws-ec2-metadata-token'])) ?? 0
    if (validUntil < performance.now()) return [401]
    if (method !== 'GET') return [405]
    this.asked.push(path)
    const value = this.#read(path)
    return value === undefined ? [404, 'Not Found'] : [200, value]
  }

  #read(path: string): string | object | undefined {
    const facts = this.#facts
    if (path === '/latest/dynamic/instance-identity/document') return identityOf(facts)
    // In lines, as there; signed by nobody.
    if (path === '/latest/dynamic/instance-identity/rsa2048')
      return Buffer.from(JSON.stringify(identityOf(facts)))
        .toString('base64')
        .replaceAll(/.{64}/g, '$&\n')
    const meta = /^\/latest\/meta-data\/(.+)$/.exec(path)?.[1]
    if (meta === undefined) return undefined
    if (meta === 'tags/instance') return facts.showsTags ? Object.keys(facts.tags).join('\n') : undefined
    if (meta.startsWith('tags/instance/')) {
      return facts.showsTags ? facts.tags[meta.slice('tags/instance/'.length)] : undefined
    }
    switch (meta) {
      case 'instance-id':
        return facts.instanceId
      case 'instance-type':
        return facts.type
      case 'instance-life-cycle':
        return facts.market
      case 'ami-id':
        return facts.imageId
      case 'local-ipv4':
        return facts.privateIp
      case 'placement/availability-zone':
        return facts.zone
      case 'placement/region':
        return facts.region
      case 'iam/info':
        return facts.profile && { Code: 'Success', InstanceProfileArn: profileArn(facts) }
      case 'iam/security-credentials':
        return facts.profile
      case `iam/security-credentials/${facts.profile}`:
        return roleKeys()
      case 'spot/instance-action':
        return this.interruptedAt && { action: 'terminate', time: wholeSeconds(this.interruptedAt) }
      case 'spot/termination-time':
        return this.interruptedAt && wholeSeconds(this.interruptedAt)
      case 'events/recommendations/rebalance':
        return this.rebalanceSince && { noticeTime: wholeSeconds(this.rebalanceSince) }
      default:
        return undefined
    }
  }
}

export async function startImds(facts: InstanceFacts): Promise<Imds> {
  const imds = new Imds(facts)
  await imds.open()
  return imds
}

/** As EC2 writes it, rounded down: the instance has at least the time that the notice says. */
const wholeSeconds = (time: Date): string => time.toISOString().replace(/\.\d+Z$/, 'Z')

const profileArn = ({ accountId, profile }: InstanceFacts): string =>
  `arn:aws:iam::${accountId}:instance-profile/${profile}`

function identityOf({ instanceId, type, zone, launchTime, ...facts }: InstanceFacts): object {
  const { accountId, architecture, imageId, privateIp, region } = facts
  return {
    accountId,
    architecture,
    availabilityZone: zone,
    imageId,
    instanceId,
    instanceType: type,
    pendingTime: wholeSeconds(launchTime),
    privateIp,
    region,
    version: '2017-09-30',
  }
}

function roleKeys(): object {
  const now = new Date()
  return {
    Code: 'Success',
    LastUpdated: wholeSeconds(now),
    Type: 'AWS-HMAC',
    AccessKeyId: 'ASIASIMULATEDINSTANCE',
    SecretAccessKey: 'simulated',
    Token: 'simulated',
    Expiration: wholeSeconds(new Date(now.getTime() + roleKeysMs)),
  }
}
