/** The pipeline's builds: what they run is there, and understands the options that it is given. */
// biome-ignore-all lint/suspicious/noTemplateCurlyInString: so CloudFormation writes what it substitutes
import { execFile } from 'node:child_process'
import { existsSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import t from 'tap'
import { parse } from 'yaml'
import { readOptions } from '../regression/options.ts'
import { isAllowed, type PolicyStatement } from '../support/cloudformation/evaluate-policy.ts'
import {
  type Mapping,
  type Resource,
  readTemplate,
  resourcesOf,
  type Template,
  walk,
} from '../support/cloudformation/read-template.ts'

const run = promisify(execFile)
const root = fileURLToPath(new URL('../..', import.meta.url))
const text = (file: string): string => readFileSync(join(root, file), 'utf8')
const template = readTemplate(text('deploy/cloudformation/pipeline.yaml'))
/** The boundary of a deployment named m, for any resource. */
const within = (): PolicyStatement[] =>
  statementsOf(template, 'machineBoundary').map(statement => ({
    ...(JSON.parse(
      JSON.stringify(statement)
        .replaceAll('{"Ref":"pDeployment"}', '"m"')
        .replaceAll('{"Ref":"AWS::AccountId"}', '"us"')
        .replaceAll('{"Fn::Sub":"ec2.${AWS::URLSuffix}"}', '"ec2"'),
    ) as PolicyStatement),
    Resource: '*',
  }))
const { scripts } = JSON.parse(text('package.json')) as { scripts: Record<string, string> }

const buildspecs = resourcesOf(template)
  .filter(([, { Type }]) => Type === 'AWS::CodeBuild::Project')
  .map(([, { Properties }]) => ((Properties as Mapping).Source as Mapping).BuildSpec as string)

interface Buildspec {
  readonly phases: Record<string, { commands?: string[]; finally?: string[] }>
}

/** A call with whatever the conditions of the boundary ask for. */
const passing = {
  'aws:ResourceTag/muster:deployment': 'm',
  'aws:ResourceAccount': 'us',
  'ec2:CreateAction': 'RunInstances',
  'iam:PassedToService': 'ec2',
  'iam:AWSServiceName': 'spot.amazonaws.com',
}

/** Of the policies of one resource. */
const statementsOf = (of: Template, name: string): Mapping[] => {
  const [, resource] = resourcesOf(of).find(([other]) => other === name) ?? []
  const { AssumeRolePolicyDocument, ...policies } = resource?.Properties ?? {}
  return [...walk(policies)].flatMap(({ value, path }) => (path.at(-2) === 'Statement' ? [value as Mapping] : []))
}

const commandsOf = (file: string): string[] =>
  Object.values((parse(text(file)) as Buildspec).phases).flatMap(phase => [
    ...(phase.commands ?? []),
    ...(phase.finally ?? []),
  ])

t.test('every command of the builds is there', async t => {
  t.same(buildspecs.sort(), ['buildspec.yml', 'deploy/buildspec-deploy.yml'])
  let found = 0
  for (const command of buildspecs.flatMap(commandsOf)) {
    await t.resolves(run('bash', ['-n', '-c', command]), command)
    for (const [, script = ''] of command.matchAll(/(?:^|\s)(\.\/[\w./-]+)/g)) {
      found += 1
      t.ok(existsSync(join(root, script)) && statSync(join(root, script)).mode & 0o111, `${script} can be run`)
    }
    for (const [, script = ''] of command.matchAll(/npm run (?:--silent )?([\w:-]+)/g)) {
      found += 1
      t.ok(scripts[script], `npm run ${script}`)
    }
    for (const [, file = ''] of command.matchAll(/--file (\S+)/g)) t.ok(existsSync(join(root, file)), file)
  }
  t.ok(found >= 5)
})

t.test('setup.sh and the regression suite understand what they are given', async t => {
  const commands = buildspecs.flatMap(commandsOf)
  const { stdout: help } = await run(join(root, 'setup.sh'), ['--help'])
  const setup = commands.find(command => command.includes('./setup.sh')) as string
  for (const [option] of setup.matchAll(/--[a-z-]+/g)) t.ok(help.includes(`${option} `), option)
  t.ok(help.includes('--yes'), 'a build answers no question')
  const [, options = ''] = /npm run --silent regression -- (.*)/.exec(commands.join('\n')) ?? []
  const given = options.split(' ').map(word => word.replaceAll('"', ''))
  t.same(
    readOptions(
      given.map(word => (word.startsWith('$') ? 'http://node' : word === '/tmp/key' ? '/dev/null' : word)),
      {},
    ).urls,
    ['http://node'],
  )
})

t.test('the image runs on either processor, and installs run no scripts of packages', async t => {
  t.match(text('scripts/push-image.sh'), '--platform linux/amd64,linux/arm64')
  t.ok(commandsOf('buildspec.yml').some(command => command.includes('./scripts/push-image.sh')))
  for (const file of ['deploy/Dockerfile', 'deploy/buildspec-deploy.yml'])
    for (const [command] of text(file).matchAll(/npm ci .*/g)) t.match(command, '--ignore-scripts', file)
  for (const [, ref = ''] of text('.github/workflows/test.yml').matchAll(/uses: \S+@(\S+)/g))
    t.match(ref, /^[0-9a-f]{40}$/)
  for (const file of ['buildspec.yml', '.github/workflows/test.yml'])
    for (const tool of ['cfn-lint', 'awscli', 'moto[server]'])
      t.ok(text(file).includes(`${tool}==`), `${file}: ${tool}`)
})

t.test('the pipeline may read the secrets of the deployment by their tag, which all of them carry', async t => {
  const muster = readTemplate(text('deploy/cloudformation/muster.yaml'))
  const secrets = resourcesOf(muster).filter(([, { Type }]) => Type === 'AWS::SecretsManager::Secret')
  t.equal(secrets.length, 3)
  for (const [name, { Properties }] of secrets)
    t.same((Properties as Mapping).Tags, [{ Key: 'muster:deployment', Value: { Ref: 'AWS::StackName' } }], name)
  const statements = statementsOf(template, 'deployRole')
  const reading = statements.filter(({ Action }) => [Action].flat().includes('secretsmanager:GetSecretValue'))
  t.match(reading, [{ Condition: { StringEquals: { 'aws:ResourceTag/muster:deployment': { Ref: 'pDeployment' } } } }])
})

t.test('what a build may send, end and hand over belongs to the deployment', async t => {
  const statements = statementsOf(template, 'deployRole')
  const of = (action: string): Mapping[] => statements.filter(({ Action }) => [Action].flat().includes(action))
  t.equal(of('ssm:SendCommand').length, 2)
  for (const { Resource } of [...of('ssm:SendCommand'), ...of('iam:PassRole'), ...of('ec2:TerminateInstances')])
    t.not(Resource, '*')
  t.match(of('iam:PassRole'), [{ Condition: { StringEquals: { 'iam:PassedToService': {} } } }])
  for (const action of ['ec2:TerminateInstances'])
    t.match(of(action), [
      { Condition: { StringEquals: { 'aws:ResourceTag/muster:deployment': { Ref: 'pDeployment' } } } },
    ])
  t.match(of('ssm:SendCommand')[0], { Condition: { StringEquals: { 'ssm:resourceTag/muster:deployment': {} } } })
})

t.test('a change of the branch widens no role of a machine beyond the boundary', async t => {
  const bounded = statementsOf(template, 'deployRole').filter(({ Condition }) =>
    JSON.stringify(Condition ?? {}).includes('iam:PermissionsBoundary'),
  )
  t.match(bounded, [{ Condition: { StringEquals: { 'iam:PermissionsBoundary': { Ref: 'machineBoundary' } } } }])
  const widening = /^iam:(?:CreateRole|(?:Attach|Detach|Put|Delete)RolePolicy|PutRolePermissionsBoundary)$/
  const forbidden =
    /^iam:(?:\*|DeleteRolePermissionsBoundary|\w*(?:User|Group|AccessKey|PolicyVersion)\w*|CreatePolicy)$/
  let found = 0
  for (const statement of statementsOf(template, 'deployRole'))
    for (const action of [statement.Action].flat() as string[]) {
      t.notMatch(action, forbidden)
      if (!widening.test(action)) continue
      found += 1
      t.ok(bounded.includes(statement), action)
    }
  t.equal(found, 6)
  const muster = readTemplate(text('deploy/cloudformation/muster.yaml'))
  for (const role of ['nodeRole', 'witnessRole', 'workerRole']) {
    const [, { Properties }] = resourcesOf(muster).find(([name]) => name === role) as [string, Resource]
    t.match(JSON.stringify(Properties.PermissionsBoundary), 'pPermissionsBoundaryArn', role)
    for (const { Action } of statementsOf(muster, role))
      for (const action of [Action].flat() as string[])
        t.ok(
          isAllowed(within(), { action, resource: 'x', context: { ...passing } }),
          `${role}: the boundary leaves ${action}`,
        )
  }
  for (const action of [
    'iam:CreateUser',
    'iam:PutRolePolicy',
    'sts:AssumeRole',
    'lambda:UpdateFunctionCode',
    'ssm:SendCommand',
  ])
    t.notOk(isAllowed(within(), { action, resource: 'x', context: passing }), action)
})

t.test('the pipeline may make, change and remove each kind of resource of the network', async t => {
  const muster = readTemplate(text('deploy/cloudformation/muster.yaml'))
  const kinds = new Set(resourcesOf(muster).map(([, { Type }]) => Type))
  const calls: Record<string, string[]> = {
    EIP: ['AllocateAddress', 'ReleaseAddress'],
    EIPAssociation: ['AssociateAddress', 'DisassociateAddress'],
    InternetGateway: ['CreateInternetGateway', 'DeleteInternetGateway'],
    LaunchTemplate: ['CreateLaunchTemplate', 'CreateLaunchTemplateVersion', 'DeleteLaunchTemplate'],
    NetworkInterface: ['CreateNetworkInterface', 'ModifyNetworkInterfaceAttribute', 'DeleteNetworkInterface'],
    Route: ['CreateRoute', 'ReplaceRoute', 'DeleteRoute'],
    RouteTable: ['CreateRouteTable', 'DeleteRouteTable'],
    SecurityGroup: ['CreateSecurityGroup', 'DeleteSecurityGroup'],
    SecurityGroupEgress: ['AuthorizeSecurityGroupEgress', 'RevokeSecurityGroupEgress'],
    SecurityGroupIngress: ['AuthorizeSecurityGroupIngress', 'RevokeSecurityGroupIngress'],
    Subnet: ['CreateSubnet', 'ModifySubnetAttribute', 'DeleteSubnet'],
    SubnetRouteTableAssociation: ['AssociateRouteTable', 'DisassociateRouteTable'],
    VPC: ['CreateVpc', 'ModifyVpcAttribute', 'DeleteVpc'],
    VPCEndpoint: ['CreateVpcEndpoint', 'ModifyVpcEndpoint', 'DeleteVpcEndpoints'],
    VPCGatewayAttachment: ['AttachInternetGateway', 'DetachInternetGateway'],
  }
  const allowing = statementsOf(template, 'deployRole').filter(({ Effect }) => Effect === 'Allow')
  const patterns = allowing.flatMap(({ Action }) => [Action].flat() as string[])
  const statement = { Effect: 'Allow', Action: patterns, Resource: '*' }
  for (const kind of kinds) {
    const [, name] = /^AWS::EC2::(\w+)$/.exec(kind) ?? []
    if (name === undefined) continue
    t.ok(calls[name], `${kind} is known here`)
    for (const call of calls[name] ?? [])
      t.ok(isAllowed([statement], { action: `ec2:${call}`, resource: 'x', context: {} }), call)
  }
})

t.test('what goes wrong takes the deployment back', async t => {
  const [, pipeline] = resourcesOf(template).find(([name]) => name === 'pipeline') ?? []
  const stages = ((pipeline as { Properties: Mapping }).Properties.Stages as Mapping[]) ?? []
  t.same(
    stages.map(({ Name }) => Name),
    ['Source', 'Build', 'Deploy'],
  )
  t.same(stages[2]?.OnFailure, { Result: 'ROLLBACK' })
  t.match(JSON.stringify(stages[2]?.OnSuccess), /CloudWatchAlarm.*pAlarmName/)
  const muster = readTemplate(text('deploy/cloudformation/muster.yaml'))
  t.ok(muster.sections.Outputs?.deploymentAlarm, 'the alarm to name is an output of the deployment')
  const [, alarm] = resourcesOf(muster).find(([name]) => name === 'deploymentAlarm') ?? []
  t.equal(alarm?.Type, 'AWS::CloudWatch::Alarm', 'no composite one: the rule of a pipeline may not see those')
  t.notMatch(JSON.stringify(alarm), 'DeadJobs', 'jobs may have been dead before')
})
