/**
 * AWS, as a node with MUSTER_FLEET=ec2 needs it: credentials, the launch template, subnets, rights (by dry runs, which
 * change nothing) and the quota of vCPUs. The SDK is loaded by the caller, since most deployments need none.
 */
import type { LaunchTemplateVersion } from '@aws-sdk/client-ec2'
import { pino } from 'pino'
import { classify, codeOf } from '../fleet/providers/ec2/aws-errors.ts'
import { clientConfig, type Ec2Api, openEc2Api } from '../fleet/providers/ec2/ec2-api.ts'
import { toCreateFleet, toRunInstances } from '../fleet/providers/ec2/launch-request.ts'
import { readBaseVersion } from '../fleet/providers/ec2/launch-template.ts'
import { tagNames, tagsFor } from '../fleet/providers/ec2/tags.ts'
import type { Settings } from '../settings/settings.ts'
import { within } from '../within.ts'
import { checkQuota, type ReadQuota } from './check-quota.ts'
import { type Finding, fail, ok, skipped, warn } from './finding.ts'

export interface AwsOptions {
  readonly settings: Settings
  readonly api: Ec2Api
  /** The value of a quota of EC2 by its code; rejects when it cannot be read. */
  readonly readQuota: ReadQuota
}

const names = ['aws-launch-template', 'aws-subnets', 'aws-rights', 'aws-quota'] as const

const credentialFaults = new Set([
  'CredentialsProviderError',
  'AuthFailure',
  'InvalidClientTokenId',
  'UnrecognizedClientException',
  'SignatureDoesNotMatch',
  'ExpiredToken',
  'ExpiredTokenException',
  'RequestExpired',
  'OptInRequired',
])

const refusals = new Set(['UnauthorizedOperation', 'AccessDenied', 'AccessDeniedException'])
export const isRefused = (error: unknown): boolean => refusals.has(codeOf(error))

const why = (error: unknown): string => `${codeOf(error)}: ${(error as Error).message}`
const policyAction = 'Give the node the policy of deploy/iam/node-policy.json (its instance profile, or the user).'

/** One finding for each check, whatever AWS answers. */
export async function checkAws(options: AwsOptions): Promise<Finding[]> {
  const { api, settings } = options
  const { ec2LaunchTemplate: template, ec2TemplateVersion, awsRegion } = settings
  let version: LaunchTemplateVersion | undefined
  try {
    version = await readBaseVersion(api, template, ec2TemplateVersion)
  } catch (error) {
    return withoutTemplate(error, template, awsRegion)
  }
  if (version === undefined) return withoutVersion(template, awsRegion)
  const found = version
  return [
    ok('aws-credentials', `accepted in ${awsRegion}`),
    judgeTemplate(template, found),
    await checkSubnets(options),
    await checkRights(options, found),
    await checkQuota(options, found.LaunchTemplateData?.InstanceType),
  ]
}

function withoutVersion(template: string, region: string): Finding[] {
  return [
    ok('aws-credentials', `accepted in ${region}`),
    fail('aws-launch-template', `${template} has no version`, 'Make one, with an image and an instance type.'),
    ...names.slice(1).map(name => skipped(name, 'without a launch template')),
  ]
}

function withoutTemplate(error: unknown, template: string, region: string): Finding[] {
  const skip = (why: string, from: number): Finding[] => names.slice(from).map(name => skipped(name, why))
  if (credentialFaults.has(codeOf(error)))
    return [
      fail(
        'aws-credentials',
        why(error),
        'Give this machine an instance profile, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or AWS_PROFILE).',
      ),
      ...skip('without credentials', 0),
    ]
  if (classify(error) === 'unknown')
    return [
      fail(
        'aws-credentials',
        `EC2 in ${region} does not answer: ${why(error)}`,
        'Is AWS_REGION right, and may this machine reach ec2.<region>.amazonaws.com (NAT, or a VPC endpoint)?',
      ),
      ...skip('EC2 does not answer', 0),
    ]
  return [
    ok('aws-credentials', `accepted in ${region}`),
    fail(
      'aws-launch-template',
      `${template}: ${why(error)}`,
      isRefused(error)
        ? policyAction
        : 'Set MUSTER_EC2_LAUNCH_TEMPLATE to the id or name of a launch template of this region and account.',
    ),
    ...skip('without a launch template', 1),
  ]
}

function judgeTemplate(
  template: string,
  { LaunchTemplateData: data = {}, VersionNumber }: LaunchTemplateVersion,
): Finding {
  const name = 'aws-launch-template'
  if (data.InstanceMarketOptions !== undefined)
    return fail(
      name,
      `${template} sets market options`,
      'Make a version without them: MUSTER_EC2_SPOT_PERCENT says how many are Spot instances.',
    )
  if (data.ImageId === undefined)
    return fail(name, `${template} names no image`, 'Make a version with one (Amazon Linux 2023, for example).')
  const text = `${template}, version ${VersionNumber}: ${data.InstanceType ?? 'no type of its own'}, ${data.ImageId}`
  return data.IamInstanceProfile === undefined
    ? warn(name, `${text}, no instance profile`, 'Give it one if workers need AWS; without, they can log nowhere.')
    : ok(name, text)
}

async function checkSubnets({ api, settings }: AwsOptions): Promise<Finding> {
  const name = 'aws-subnets'
  const { ec2Subnets: wanted, pools } = settings
  if (wanted.length === 0) return skipped(name, 'MUSTER_EC2_SUBNETS is not set: the launch template says where')
  try {
    const reply = await api.retried((client, call) => client.describeSubnets({ SubnetIds: [...wanted] }, call))
    const subnets = reply.Subnets ?? []
    const free = subnets.reduce((total, { AvailableIpAddressCount = 0 }) => total + AvailableIpAddressCount, 0)
    const most = Object.values(pools).reduce((total, { maxWorkers }) => total + maxWorkers, 0)
    const zones = new Set(subnets.map(({ AvailabilityZone }) => AvailabilityZone))
    const text = `${wanted.length} in ${zones.size} zones, ${free} addresses free`
    return free < most
      ? warn(name, `${text} for up to ${most} workers`, 'Add larger subnets, or lower MUSTER_MAX_WORKERS.')
      : ok(name, text)
  } catch (error) {
    if (isRefused(error)) return skipped(name, 'no right to look at subnets (ec2:DescribeSubnets); a node needs none')
    return fail(name, why(error), 'Set MUSTER_EC2_SUBNETS to subnets of this region and account.')
  }
}

interface DryRun {
  readonly action: string
  /** Undefined: there is nothing to try it on. */
  readonly call: (() => Promise<unknown>) | undefined
}

/** Would it be allowed? EC2 answers a dry run with an error in any case. */
async function checkRights(options: AwsOptions, version: LaunchTemplateVersion): Promise<Finding> {
  const { api, settings } = options
  const name = 'aws-rights'
  const [queue = 'default', pool] = Object.entries(settings.pools)[0] ?? []
  const request = { pool: queue, count: 1, decisionId: 'doctor', slots: pool?.slots ?? 1 }
  const tags = tagsFor(settings.deployment, request)
  const template = {
    templateId: version.LaunchTemplateId ?? '',
    version: String(version.VersionNumber),
    instanceType: version.LaunchTemplateData?.InstanceType,
    hasNetworkInterfaces: (version.LaunchTemplateData?.NetworkInterfaces ?? []).length > 0,
    metadata: {},
  }
  const [instanceType] = settings.ec2InstanceTypes
  const subnetId = template.hasNetworkInterfaces ? undefined : settings.ec2Subnets[0]
  const place = { instanceType, subnetId }
  const ask = { spot: 0, onDemand: 1, offerings: [place] }
  // A token of its own each time: it must not be taken for that of a launch.
  const token = `doctor-${Date.now()}`
  let ours: string | undefined
  const runs: DryRun[] = [
    {
      action: 'ec2:DescribeInstances',
      call: async () => {
        const reply = await api.once((client, call) =>
          client.describeInstances(
            {
              Filters: [
                { Name: `tag:${tagNames.deployment}`, Values: [settings.deployment] },
                { Name: 'instance-state-name', Values: ['pending', 'running'] },
              ],
            },
            call,
          ),
        )
        ours = reply.Reservations?.flatMap(({ Instances = [] }) => Instances)[0]?.InstanceId
      },
    },
    {
      action: 'ec2:RunInstances',
      call: () =>
        api.once((client, call) =>
          client.runInstances({ ...toRunInstances(ask, template, tags, token), DryRun: true }, call),
        ),
    },
    {
      action: 'ec2:CreateFleet',
      call: () =>
        api.once((client, call) =>
          client.createFleet({ ...toCreateFleet(ask, template, tags, token), DryRun: true }, call),
        ),
    },
  ]
  const missing: string[] = []
  const others: string[] = []
  const allowed: string[] = []
  const tryOne = async ({ action, call }: DryRun): Promise<void> => {
    const error = await call?.().then(
      () => undefined,
      (error: unknown) => error,
    )
    if (error === undefined || codeOf(error) === 'DryRunOperation') allowed.push(action)
    else if (isRefused(error)) missing.push(action)
    else others.push(`${action}: ${why(error)}`)
  }
  for (const run of runs) await tryOne(run)
  const id = ours
  // Rights go by the tags of an instance, so it takes one to try it on.
  if (id !== undefined)
    await tryOne({
      action: 'ec2:TerminateInstances',
      call: () => api.once((client, call) => client.terminateInstances({ InstanceIds: [id], DryRun: true }, call)),
    })
  const untried = id === undefined ? '; TerminateInstances not tried: no worker instance runs' : ''
  if (missing.length > 0) return fail(name, `missing: ${missing.join(', ')}`, policyAction)
  if (others.length > 0)
    return fail(name, others.join('; '), 'EC2 refuses the launch itself: mend the launch template, type or subnet.')
  return ok(name, `${allowed.join(', ')}${untried}`)
}

/** Opens the clients of AWS for the checks, and closes them again. */
const callWithinMs = 8000
const pace = { firstMs: 250, maxMs: 2000, callTimeoutMs: callWithinMs, launchMs: callWithinMs }

export async function examineAws(settings: Settings): Promise<Finding[]> {
  const access = { region: settings.awsRegion, endpoint: settings.awsEndpointUrl }
  const api = await openEc2Api(access, pace, pino({ level: 'silent' }))
  const { ServiceQuotas } = await import('@aws-sdk/client-service-quotas')
  const quotas = new ServiceQuotas(clientConfig(access))
  const readQuota = async (QuotaCode: string): Promise<number> => {
    const options = { abortSignal: AbortSignal.timeout(callWithinMs) }
    const call = quotas.getServiceQuota({ ServiceCode: 'ec2', QuotaCode }, options)
    const { Quota } = await within(callWithinMs, 'Service Quotas', call)
    if (Quota?.Value === undefined) throw new Error('it has no value')
    return Quota.Value
  }
  try {
    return await checkAws({ settings, api, readQuota })
  } finally {
    api.close()
    quotas.destroy()
  }
}
