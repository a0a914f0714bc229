/**
 * The launch template that instances are made from: its base version as it is, when that has all that a worker needs;
 * otherwise a version that we derive from it and find again by its description, `muster <hash of what is in it>`.
 * So every node with the same settings uses the same version, and it is made once.
 */
import { createHash } from 'node:crypto'
import type {
  LaunchTemplateInstanceMetadataOptionsRequest,
  LaunchTemplateVersion,
  RequestLaunchTemplateData,
  ResponseLaunchTemplateData,
} from '@aws-sdk/client-ec2'
import type { FastifyBaseLogger } from 'fastify'
import { StartupError } from '../../../errors.ts'
import type { Ec2Api } from './ec2-api.ts'
import { clientToken } from './tags.ts'

export interface LaunchTemplateOptions {
  readonly api: Ec2Api
  /** Its id (lt-…) or its name. */
  readonly template: string
  /** Which version counts; unset: the default one. */
  readonly base?: TemplateBase
  /** What a new instance runs when the template does not say. */
  readonly userData: string
  readonly log: FastifyBaseLogger
  readonly clock?: () => number
}

export interface ResolvedTemplate {
  readonly templateId: string
  readonly version: string
  /** What it launches when nobody says otherwise. */
  readonly instanceType: string | undefined
  /** It says in which network its instances are, so that RunInstances takes no subnet beside it. */
  readonly hasNetworkInterfaces: boolean
  /** IMDSv2 only, with the tags of the instance. */
  readonly metadata: LaunchTemplateInstanceMetadataOptionsRequest
}

/** A change of the template is noticed after this long. */
const validMs = 5 * 60_000

export class LaunchTemplate {
  readonly #options: LaunchTemplateOptions
  readonly #clock: () => number
  #resolving: { readonly at: number; readonly template: Promise<ResolvedTemplate> } | undefined

  constructor(options: LaunchTemplateOptions) {
    this.#options = options
    this.#clock = options.clock ?? Date.now
  }

  /**
   * The version to launch; makes it when it is missing. Asks EC2 at most every five minutes.
   * @throws StartupError when the template cannot be used for a fleet; else the error of AWS
   */
  async resolve(): Promise<ResolvedTemplate> {
    const now = this.#clock()
    if (this.#resolving === undefined || now - this.#resolving.at > validMs) {
      this.#resolving = { at: now, template: this.#resolve() }
    }
    const { template } = this.#resolving
    try {
      return await template
    } catch (error) {
      this.forget()
      throw error
    }
  }

  /** Asks EC2 again next time. */
  forget(): void {
    this.#resolving = undefined
  }

  async #resolve(): Promise<ResolvedTemplate> {
    const { api, template } = this.#options
    const base = await readBaseVersion(api, template, this.#options.base ?? 'default')
    if (base?.LaunchTemplateId === undefined) throw new StartupError(`Launch template ${template} has no version.`)
    const data = base.LaunchTemplateData ?? {}
    if (data.InstanceMarketOptions !== undefined)
      throw new StartupError(
        `Launch template ${template} sets market options. Make a version without them: MUSTER_EC2_SPOT_PERCENT says how many are Spot instances.`,
      )
    const changes = missingIn(data, this.#options.userData)
    const version = changes === undefined ? base : await this.#derived(base, base.LaunchTemplateId, changes)
    return {
      templateId: base.LaunchTemplateId,
      version: String(version.VersionNumber),
      instanceType: data.InstanceType,
      hasNetworkInterfaces: (data.NetworkInterfaces ?? []).length > 0,
      metadata: metadataOptions(data),
    }
  }

  async #derived(
    base: LaunchTemplateVersion,
    templateId: string,
    changes: RequestLaunchTemplateData,
  ): Promise<LaunchTemplateVersion> {
    const { api, log, template } = this.#options
    const hash = createHash('sha256')
      .update(JSON.stringify([base.VersionNumber, changes]))
      .digest('hex')
    const description = derivedDescription(hash)
    const known = (await readVersions(api, template)).find(
      ({ VersionDescription }) => VersionDescription === description,
    )
    if (known !== undefined) return known
    const reply = await api.retried((client, options) =>
      client.createLaunchTemplateVersion(
        {
          LaunchTemplateId: templateId,
          SourceVersion: String(base.VersionNumber),
          VersionDescription: description,
          LaunchTemplateData: changes,
          ClientToken: clientToken('launch-template', templateId, hash),
        },
        options,
      ),
    )
    const made = reply.LaunchTemplateVersion ?? {}
    log.info({ launchTemplate: template, version: made.VersionNumber, description }, 'made a launch template version')
    return made
  }
}

/** What must be added to a template; undefined when nothing. The user's own user data is kept. */
function missingIn(data: ResponseLaunchTemplateData, userData: string): RequestLaunchTemplateData | undefined {
  const metadata = data.MetadataOptions
  const isOurs =
    data.InstanceInitiatedShutdownBehavior === 'terminate' &&
    metadata?.HttpTokens === 'required' &&
    metadata.InstanceMetadataTags === 'enabled' &&
    metadata.HttpEndpoint !== 'disabled' &&
    (data.UserData ?? '') !== ''
  if (isOurs) return undefined
  return {
    InstanceInitiatedShutdownBehavior: 'terminate',
    MetadataOptions: metadataOptions(data),
    ...((data.UserData ?? '') === '' && { UserData: Buffer.from(userData).toString('base64') }),
  }
}

/** The template's own, made to ask for a token, and to show the tags that the user data reads. */
function metadataOptions({ MetadataOptions: own }: ResponseLaunchTemplateData) {
  return {
    HttpEndpoint: 'enabled',
    HttpTokens: 'required',
    InstanceMetadataTags: 'enabled',
    ...(own?.HttpPutResponseHopLimit !== undefined && { HttpPutResponseHopLimit: own.HttpPutResponseHopLimit }),
    ...(own?.HttpProtocolIpv6 !== undefined && { HttpProtocolIpv6: own.HttpProtocolIpv6 }),
  } as const
}

/**
 * The versions of a launch template: which one a deployment builds on, and which ones nodes have derived.
 * `default` is for templates that a person keeps: what is tried out in a new version reaches nobody until it is made the default.
 * `latest` is for templates that CloudFormation owns: it makes a new version for each update and cannot make it the default.
 */
export type TemplateBase = 'default' | 'latest'

const derivedMark = /^muster [0-9a-f]{16}$/

/** How a derived version is found again, by every node. @param hash of all that is in it, in hex */
export const derivedDescription = (hash: string): string => `muster ${hash.slice(0, 16)}`

/**
 * The version that counts before anything is derived from it.
 * @returns undefined when the template has none
 */
export async function readBaseVersion(
  api: Ec2Api,
  template: string,
  base: TemplateBase,
): Promise<LaunchTemplateVersion | undefined> {
  if (base === 'default') return (await readVersions(api, template, { Versions: ['$Default'] }))[0]
  const own = (await readVersions(api, template)).filter(
    ({ VersionDescription = '' }) => !derivedMark.test(VersionDescription),
  )
  return own.sort((a, b) => (b.VersionNumber ?? 0) - (a.VersionNumber ?? 0))[0]
}

/** All versions that are asked for, however many pages they fill. */
export async function readVersions(
  api: Ec2Api,
  template: string,
  which: { readonly Versions?: string[] } = {},
): Promise<LaunchTemplateVersion[]> {
  const name = /^lt-[0-9a-f]+$/.test(template) ? { LaunchTemplateId: template } : { LaunchTemplateName: template }
  const versions: LaunchTemplateVersion[] = []
  let page: string | undefined
  do {
    const input = { ...name, ...which, ...(page !== undefined && { NextToken: page }) }
    const reply = await api.retried((client, options) => client.describeLaunchTemplateVersions(input, options))
    versions.push(...(reply.LaunchTemplateVersions ?? []))
    page = reply.NextToken
  } while (page !== undefined && page !== '')
  return versions
}
