/** Opens the EC2 provider as the settings want it, and looks at once whether its launch template can be used. */
import type { FastifyBaseLogger } from 'fastify'
import { StartupError } from '../../../errors.ts'
import type { Settings } from '../../../settings/settings.ts'
import type { Provider } from '../provider.ts'
import { workerBundle } from '../worker-bundle.ts'
import { classify, codeOf } from './aws-errors.ts'
import { openEc2Api } from './ec2-api.ts'
import { Ec2Provider } from './ec2-provider.ts'
import { LaunchTemplate } from './launch-template.ts'
import { renderUserData } from './user-data.ts'

/** A launch is over before the autoscaler gives it up (30 s). */
const pace = { firstMs: 250, maxMs: 4000, callTimeoutMs: 10_000, launchMs: 25_000 }
const hiddenGraceMs = 2 * 60_000
const unavailableForMs = 5 * 60_000
const longestListCacheMs = 1000

/**
 * @throws StartupError when AWS refuses: no such launch template, no permission, no credentials. When it cannot be reached the
 * node starts all the same: launches are tried when they are desired.
 */
export async function openEc2Provider(settings: Settings, log: FastifyBaseLogger): Promise<Provider> {
  const access = { region: settings.awsRegion, endpoint: settings.awsEndpointUrl }
  const bundleSha256 = settings.bundleUrl === '' ? (await workerBundle()).digest : settings.bundleSha256
  const userData = await renderUserData({ ...settings, bundleSha256 }, settings.nodeUrls)
  const api = await openEc2Api(access, pace, log)
  const template = new LaunchTemplate({
    api,
    template: settings.ec2LaunchTemplate,
    base: settings.ec2TemplateVersion,
    userData,
    log,
  })
  try {
    await checkTemplate(template, settings, log)
  } catch (error) {
    api.close()
    throw error
  }
  const { deployment, ec2Subnets: subnets, ec2VolumeGraceMs: volumeGraceMs } = settings
  const listCacheMs = Math.min(longestListCacheMs, settings.autoscaleIntervalMs / 2)
  const base = {
    instanceTypes: settings.ec2InstanceTypes,
    spotPercent: settings.ec2SpotPercent,
    handlerMetadata: settings.ec2HandlerMetadata,
  }
  return new Ec2Provider({
    ...{ api, access, template, deployment, subnets, log },
    ...{ listCacheMs, hiddenGraceMs, unavailableForMs, volumeGraceMs },
    placementOf: pool => (Object.hasOwn(settings.placements, pool) ? (settings.placements[pool] ?? base) : base),
  })
}

async function checkTemplate(template: LaunchTemplate, settings: Settings, log: FastifyBaseLogger): Promise<void> {
  try {
    await template.resolve()
  } catch (error) {
    if (error instanceof StartupError) throw error
    const { message } = error as Error
    if (classify(error) === 'refused')
      throw new StartupError(
        `EC2 refuses what MUSTER_FLEET=ec2 needs (launch template ${settings.ec2LaunchTemplate}, region ${settings.awsRegion}): ${codeOf(error)}: ${message}`,
        { cause: error },
      )
    log.warn({ err: error }, 'EC2 cannot be reached: the fleet cannot grow until it can')
  }
}
