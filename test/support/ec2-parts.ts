/** The EC2 provider on the emulator behind its front: with a launch template, subnets in three zones, and short waits. */
import { randomUUID } from 'node:crypto'
import { EC2, type RequestLaunchTemplateData } from '@aws-sdk/client-ec2'
import { pino } from 'pino'
import type { Test } from 'tap'
import { type Ec2Api, openEc2Api, type Pace } from '../../src/fleet/providers/ec2/ec2-api.ts'
import { Ec2Provider, type Ec2ProviderOptions } from '../../src/fleet/providers/ec2/ec2-provider.ts'
import { LaunchTemplate, type TemplateBase } from '../../src/fleet/providers/ec2/launch-template.ts'
import type { Placement } from '../../src/fleet/providers/ec2/launcher.ts'
import type { Front } from './aws/front.ts'

process.env.AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED = 'true'
process.env.AWS_ACCESS_KEY_ID = 'test'
process.env.AWS_SECRET_ACCESS_KEY = 'test'

export const region = 'us-east-1'
export const deployment = 'test'
const silent = pino({ level: process.env.TEST_LOG_LEVEL ?? 'silent' })

export interface Ec2Options extends Partial<Omit<Ec2ProviderOptions, 'placementOf'>> {
  readonly placement?: Partial<Placement>
  readonly userData?: string
  readonly templateName?: string
  readonly templateVersion?: TemplateBase
  readonly pace?: Partial<Pace>
}

export interface Ec2Parts {
  /** Straight to the front, as an administrator. */
  readonly admin: EC2
  /** One for each of the zones a, b and c. */
  readonly subnets: readonly string[]
  /** Makes a launch template with an image and a type, and what else is given. */
  createTemplate(data?: RequestLaunchTemplateData, name?: string): Promise<string>
  /** Another provider on the same account: what another node would have. */
  open(options?: Ec2Options): Promise<Ec2Provider>
}

export async function openEc2Parts(t: Pick<Test, 'teardown'>, front: Front): Promise<Ec2Parts> {
  const access = { region, endpoint: front.url }
  const admin = new EC2({ ...access, maxAttempts: 1, credentials: { accessKeyId: 'test', secretAccessKey: 'test' } })
  t.teardown(() => admin.destroy())
  const { Subnets = [] } = await admin.describeSubnets({})
  const subnetIn = (zone: string): string =>
    Subnets.find(({ AvailabilityZone }) => AvailabilityZone === zone)?.SubnetId ?? ''
  const apis: Ec2Api[] = []
  t.teardown(() => {
    for (const api of apis) api.close()
  })
  return {
    admin,
    subnets: ['a', 'b', 'c'].map(letter => subnetIn(region + letter)),
    async createTemplate(data = {}, name = 'workers') {
      const reply = await admin.createLaunchTemplate({
        LaunchTemplateName: name,
        LaunchTemplateData: { ImageId: 'ami-12c6146b', InstanceType: 'c5.large', ...data },
      })
      return reply.LaunchTemplate?.LaunchTemplateId ?? ''
    },
    async open({
      placement = {},
      userData = '#!/bin/bash\ntrue\n',
      templateName = 'workers',
      templateVersion = 'default',
      pace = {},
      ...options
    } = {}) {
      const { log = silent } = options
      const api = await openEc2Api(
        access,
        { firstMs: 20, maxMs: 400, callTimeoutMs: 8000, launchMs: 20_000, ...pace },
        log,
      )
      apis.push(api)
      const provider = new Ec2Provider({
        ...{ api, access, deployment, log, subnets: [] },
        template: new LaunchTemplate({ api, template: templateName, base: templateVersion, userData, log }),
        placementOf: () => ({ instanceTypes: [], spotPercent: 0, ...placement }),
        ...{ listCacheMs: 0, hiddenGraceMs: 120_000, unavailableForMs: 300_000, volumeGraceMs: 600_000 },
        ...options,
      })
      t.teardown(() => provider.close())
      return provider
    },
  }
}

/** A fresh account with a template, and a provider on it. */
export async function setUpEc2(t: Pick<Test, 'teardown'>, front: Front, options: Ec2Options = {}) {
  await front.reset()
  const parts = await openEc2Parts(t, front)
  const templateId = await parts.createTemplate()
  front.calls.length = 0
  return { ...parts, templateId, provider: await parts.open(options) }
}

export const request = (count: number, decisionId: string = randomUUID()) => ({
  ...{ pool: 'default', count, decisionId, slots: 2 },
})

export const idsOf = (instances: readonly { readonly id: string }[]) => instances.map(({ id }) => id).sort()
