/**
 * The versions of a launch template: which one a deployment builds on, and which ones nodes have derived.
 * `default` is for templates that a person keeps: what is tried out in a new version reaches nobody until it is made the default.
 * `latest` is for templates that CloudFormation owns: it makes a new version for each update and cannot make it the default.
 */
import type { LaunchTemplateVersion } from '@aws-sdk/client-ec2'
import type { Ec2Api } from './ec2-api.ts'

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
