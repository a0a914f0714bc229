/**
 * A launch template is written out into the request that names it, a version into the one that is derived from it.
 * Why: moto drops a template's profile, metadata, market and shutdown options, and the source of a version.
 */
import type { Caller, Ec2Calls } from '../ec2-calls.ts'
import { type Params, paramsOf, sub, tagParams, tagsOf, without } from '../query.ts'
import { Refusal } from '../reply.ts'
import { find, itemsOf, textOf } from '../xml.ts'

export interface TemplateVersion {
  readonly id: string
  readonly name: string
  readonly version: string
  /** Its data, as RunInstances would be asked for the same. */
  readonly data: Params
}

/**
 * Reads one version: a number, `$Default` (also when none is named) or `$Latest`.
 * @throws Refusal when there is no such template or version
 */
export async function readTemplate(specification: Params, caller: Caller, ec2: Ec2Calls): Promise<TemplateVersion> {
  const { LaunchTemplateId, LaunchTemplateName, Version = '$Default' } = specification
  if ((LaunchTemplateId === undefined) === (LaunchTemplateName === undefined)) {
    throw new Refusal('InvalidRequest', 'Either a launch template ID or a launch template name must be given.')
  }
  const reply = await ec2.asAdmin(caller, {
    Action: 'DescribeLaunchTemplateVersions',
    ...(LaunchTemplateId !== undefined && { LaunchTemplateId }),
    ...(LaunchTemplateName !== undefined && { LaunchTemplateName }),
    'LaunchTemplateVersion.1': Version,
  })
  const found = itemsOf(reply, 'launchTemplateVersionSet')[0]
  const data = find(found, 'launchTemplateData')
  if (data === undefined) {
    throw new Refusal(
      'InvalidLaunchTemplateId.VersionNotFound',
      `There is no version ${Version} of the launch template.`,
    )
  }
  return {
    id: textOf(found, 'launchTemplateId') ?? '',
    name: textOf(found, 'launchTemplateName') ?? '',
    version: textOf(found, 'versionNumber') ?? '',
    data: paramsOf(data),
  }
}

/** RunInstances as it would be without a template. What the request says counts; tags of both come together. */
export async function expandLaunchTemplate(params: Params, caller: Caller, ec2: Ec2Calls): Promise<Params> {
  const specification = sub(params, 'LaunchTemplate')
  if (Object.keys(specification).length === 0) return params
  return writeOut(await readTemplate(specification, caller, ec2), without(params, 'LaunchTemplate'))
}

/** The request on top of the template: a list of the request replaces the template's, a structure is merged by field. */
export function writeOut({ id, version, data }: TemplateVersion, request: Params): Params {
  const lists = Object.keys(request).flatMap(name => /^(\w+)\.\d+(\.|$)/.exec(name)?.[1] ?? [])
  const tags = tagsOf(data)
  for (const [kind, given] of tagsOf(request)) tags.set(kind, new Map([...(tags.get(kind) ?? []), ...given]))
  const ofInstance = tags.get('instance') ?? new Map<string, string>()
  ofInstance.set('aws:ec2launchtemplate:id', id).set('aws:ec2launchtemplate:version', version)
  tags.set('instance', ofInstance)
  return {
    ...without(data, 'TagSpecification', ...lists),
    ...without(request, 'TagSpecification'),
    ...tagParams(tags),
  }
}

/** CreateLaunchTemplateVersion with all that it takes over from its SourceVersion: what it does not say itself. */
export async function expandSourceVersion(params: Params, caller: Caller, ec2: Ec2Calls): Promise<Params> {
  const { SourceVersion, LaunchTemplateId, LaunchTemplateName } = params
  if (SourceVersion === undefined) return params
  const source = await readTemplate(
    {
      Version: SourceVersion,
      ...(LaunchTemplateId !== undefined && { LaunchTemplateId }),
      ...(LaunchTemplateName !== undefined && { LaunchTemplateName }),
    },
    caller,
    ec2,
  )
  const given = Object.keys(sub(params, 'LaunchTemplateData')).map(name => name.split('.')[0] ?? '')
  const taken = Object.entries(without(source.data, ...given))
  return {
    ...without(params, 'SourceVersion'),
    ...Object.fromEntries(taken.map(([name, value]) => [`LaunchTemplateData.${name}`, value])),
  }
}
