/** Every CloudFormation template: cfn-lint, secrets, permissions, what depends on what. Its style: template-style.test.ts. */
// biome-ignore-all lint/suspicious/noTemplateCurlyInString: so CloudFormation writes what it substitutes
import { spawnSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { readSettings } from '../../src/settings/settings.ts'
import {
  type Mapping,
  readTemplate,
  resourcesOf,
  type Template,
  type Value,
  walk,
} from '../support/cloudformation/read-template.ts'
import { haveTool } from '../support/have-tool.ts'
import { patienceMs } from '../support/until.ts'

const root = fileURLToPath(new URL('../../', import.meta.url))
const folder = join(root, 'deploy/cloudformation')
const files = readdirSync(folder).filter(name => name.endsWith('.yaml'))
const read = (name: string): Template => readTemplate(readFileSync(join(folder, name), 'utf8'))
const muster = read('muster.yaml')
const inSection = (section: string, name: string): Mapping => (muster.sections[section]?.[name] ?? {}) as Mapping

t.test('cfn-lint has nothing to say', async t => {
  if (!haveTool(t, 'cfn-lint', 'pip install cfn-lint')) return
  for (const file of files) {
    const { status, stdout, stderr } = spawnSync('cfn-lint', ['--include-checks', 'W', 'I', '--', join(folder, file)], {
      encoding: 'utf8',
      timeout: patienceMs,
    })
    t.equal(`${stdout}${stderr}`, '', file)
    t.equal(status, 0, file)
  }
})

t.test('the version of the template is that of the package', async t => {
  const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
  t.equal(inSection('Outputs', 'templateVersion').Value, version)
})

t.test('no secret is in user data, outputs or anything else that can be read back', async t => {
  const text = (value: Value): string => (typeof value === 'string' ? value : JSON.stringify(value))
  for (const file of files) {
    const template = read(file)
    const secrets = resourcesOf(template).filter(([, { Type }]) => Type === 'AWS::SecretsManager::Secret')
    for (const [name, { Properties }] of secrets) {
      t.notOk('SecretString' in Properties, `${name} is made by Secrets Manager, not written in the template`)
    }
    const values = [...walk(template.sections as Mapping)]
    const resolved = values.filter(
      ({ value }) => typeof value === 'string' && value.includes('{{resolve:secretsmanager'),
    )
    for (const { path } of resolved)
      t.match(
        path.join('.'),
        /^Resources\.cache\.Properties\.AuthToken\./,
        'only ElastiCache takes a password from CloudFormation',
      )
    t.same(
      values.filter(({ value }) => typeof value === 'string' && /\{\{resolve:ssm-secure/.test(value)),
      [],
    )
    const open = values.filter(
      ({ path }) => path[0] === 'Outputs' || path.includes('UserData') || path.includes('Tags'),
    )
    for (const { value, path } of open)
      t.notMatch(text(value), /\{\{resolve|SecretString|AuthToken|PASSWORD|_KEY=|_TOKEN=|SECRET_VALUE/i, path.join('.'))
  }
  // Names of secrets may stand there: who reads a name has not read the secret.
  const named = [...walk(muster.sections.Resources as Mapping)].filter(
    ({ value, path }) => path.includes('UserData') && typeof value === 'string' && /_SECRET=/.test(value),
  )
  for (const { value } of named)
    t.same(
      [...String(value).matchAll(/^(\w*SECRET)=(.*)$/gm)]
        .map(([, , what]) => what)
        .filter(
          what =>
            !['${pRedisSecretArn}', '${cacheSecret}', '${operatorKey}', '${workerJoinSecret}'].includes(what ?? ''),
        ),
      [],
    )
  t.equal(named.length, 3)
})

/** A policy in the template as deploy/iam writes it. */
const asInJson = (value: Value): Value => {
  if (typeof value === 'string') return value
  if (Array.isArray(value)) return value.map(asInJson)
  if (typeof value !== 'object' || value === null) return String(value)
  const mapping = value as Mapping
  if (typeof mapping.Ref === 'string') return `\${${mapping.Ref}}`
  const written = mapping['Fn::Sub'] ?? mapping['Fn::GetAtt']
  if (typeof written === 'string') return written
  return Object.fromEntries(Object.entries(mapping).map(([key, inner]) => [key, asInJson(inner)]))
}

const statementsOf = (role: string): Mapping[] => {
  const [, resource] = resourcesOf(muster).find(([name]) => name === role) ?? []
  return [...walk(resource?.Properties.Policies ?? [])].flatMap(({ value, path }) =>
    path.at(-2) === 'Statement' ? [value as Mapping] : [],
  )
}

t.test('the fleet may do in the stack what deploy/iam allows it, word for word', async t => {
  const { Statement } = JSON.parse(
    readFileSync(join(root, 'deploy/iam/node-policy.json'), 'utf8')
      .replaceAll('arn:aws:', 'arn:${AWS::Partition}:')
      .replaceAll('REGION', '${AWS::Region}')
      .replaceAll('ACCOUNT', '${AWS::AccountId}')
      .replaceAll('DEPLOYMENT', '${AWS::StackName}')
      .replaceAll('LAUNCH_TEMPLATE_ID', '${workerLaunchTemplate}')
      .replace('["INSTANCE_TYPE"]', '{"Fn::Split": [",", "${pWorkerInstanceTypes}"]}')
      .replaceAll('arn:${AWS::Partition}:iam::${AWS::AccountId}:role/WORKER_ROLE', 'workerRole.Arn')
      .replace('"iam:PassedToService": "ec2.amazonaws.com"', '"iam:PassedToService": "ec2.${AWS::URLSuffix}"'),
  ) as { Statement: Mapping[] }
  const inStack = new Map(statementsOf('nodeRole').map(statement => [statement.Sid, asInJson(statement)]))
  for (const statement of Statement) {
    if (statement.Sid === 'LaunchIntoOwnNetwork') continue
    t.same(inStack.get(statement.Sid as string), statement, String(statement.Sid))
  }
  // Which subnets there are is for the stack to say.
  const own = inStack.get('LaunchIntoOwnNetwork') as Mapping | undefined
  const written = JSON.stringify(own?.Resource)
  t.equal(written.match(/:subnet\/\$\{subnet\}/g)?.length, 3)
  t.match(written, ':security-group/${workerSecurityGroup}"')
  t.notMatch(written, /(?:subnet|security-group)\/\*/)
  t.same(own?.Condition, Statement.find(({ Sid }) => Sid === 'LaunchIntoOwnNetwork')?.Condition)
})

t.test('permissions are as narrow as AWS lets them be', async t => {
  // EC2, CloudWatch, SSM and Service Quotas know nothing narrower for these.
  const everywhere =
    /^(?:ec2:Describe\w+|pricing:GetProducts|cloudwatch:PutMetricData|servicequotas:GetServiceQuota|ssmmessages:\w+|ec2messages:\w+|ssm:UpdateInstanceInformation)$/
  for (const role of ['nodeRole', 'witnessRole', 'workerRole']) {
    const statements = statementsOf(role)
    t.not(statements.length, 0)
    for (const { Sid, Action, Resource, Effect } of statements) {
      const actions = [Action].flat() as string[]
      t.equal(Effect, 'Allow')
      for (const action of actions) t.notMatch(action, /\*/, `${role}.${Sid}: ${action}`)
      if (Resource === '*') for (const action of actions) t.match(action, everywhere, `${role}.${Sid}: ${action}`)
    }
    t.same(
      statements
        .filter(({ Action }) => [Action].flat().includes('iam:PassRole'))
        .map(({ Condition }) => Condition !== undefined),
      role === 'nodeRole' ? [true] : [],
    )
  }
  const may = (role: string): string[] => statementsOf(role).flatMap(({ Sid }) => String(Sid))
  t.same(may('witnessRole'), ['FetchBundle', 'ReadSecrets', 'ShipLogs', 'OpenSessions'], 'a witness launches nothing')
  t.same(may('workerRole'), ['ReadJoinParameter', 'ReadJoinSecret', 'OpenSessions'], 'a worker may join')
})

t.test('nobody is let in whom nobody asked for', async t => {
  const ingress = resourcesOf(muster).filter(([, { Type }]) => Type === 'AWS::EC2::SecurityGroupIngress')
  const from = ingress.map(([name, { Properties }]) => [
    name,
    Properties.FromPort,
    Properties.CidrIp ?? Properties.SourceSecurityGroupId,
  ])
  t.same(from, [
    ['redisFromRedis', 6379, { Ref: 'redisSecurityGroup' }],
    ['sentinelFromSentinel', 26379, { Ref: 'redisSecurityGroup' }],
    ['apiFromWorkers', 5000, { Ref: 'workerSecurityGroup' }],
    ['apiFromNodes', 5000, { Ref: 'nodeSecurityGroup' }],
    ['apiFromClients', 5000, { Ref: 'pClientCidr' }],
    ['apiFromLoadBalancer', 5000, { Ref: 'loadBalancerSecurityGroup' }],
    ['httpsFromClients', 443, { Ref: 'pClientCidr' }],
    ['httpFromClients', 80, { Ref: 'pClientCidr' }],
  ])
  for (const [name, { Properties }] of ingress) t.equal(Properties.ToPort, Properties.FromPort, name)
  t.equal(inSection('Parameters', 'pClientCidr').Default, '')
  for (const [name, { Type, Properties }] of resourcesOf(muster))
    if (Type === 'AWS::EC2::SecurityGroup') t.notOk('SecurityGroupIngress' in Properties, `${name}: rules stand alone`)
})

t.test('machines are of the kind that they should be', async t => {
  const templates = resourcesOf(muster).filter(([, { Type }]) => Type === 'AWS::EC2::LaunchTemplate')
  t.same(templates.map(([name]) => name).sort(), [
    'nodeALaunchTemplate',
    'nodeBLaunchTemplate',
    'witnessLaunchTemplate',
    'workerLaunchTemplate',
  ])
  for (const [name, { Properties }] of templates) {
    const data = Properties.LaunchTemplateData as Mapping
    t.match(data.MetadataOptions, { HttpTokens: 'required', HttpPutResponseHopLimit: 1 }, name)
    t.match(
      data.BlockDeviceMappings,
      [{ Ebs: { VolumeType: 'gp3', Encrypted: true, DeleteOnTermination: true } }],
      name,
    )
    t.notOk('KeyName' in data, `${name}: no SSH`)
  }
  const worker = templates.find(([name]) => name === 'workerLaunchTemplate')?.[1].Properties
    .LaunchTemplateData as Mapping
  t.equal(worker.InstanceInitiatedShutdownBehavior, 'terminate')
  t.notOk('UserData' in worker, 'a node adds it')
})

t.test('nodes and witness run the one user data, deploy/user-data/node.sh', async t => {
  const script = readFileSync(join(root, 'deploy/user-data/node.sh'), 'utf8')
  const settings = /(<<'SETTINGS'\n)[\s\S]*?(\nSETTINGS\n)/
  for (const machine of ['nodeA', 'nodeB', 'witness']) {
    const [, resource] = resourcesOf(muster).find(([name]) => name === `${machine}LaunchTemplate`) ?? []
    const found = [...walk(resource?.Properties ?? {})].find(
      ({ value, path }) => path.includes('UserData') && typeof value === 'string' && value.startsWith('#!'),
    )
    const text = String(found?.value)
    t.equal(text.replace(settings, '$1@@SETTINGS@@$2'), script, machine)
    t.match(text, `SIGNAL=${machine}Group\n`)
    for (const [whole, name] of text.matchAll(/\$\{([^}]+)\}/g))
      t.notMatch(name, /[^\w:.]/, `${machine}: ${whole} is for CloudFormation, the script has no braces of its own`)
  }
})

/** By name, each with the parameters that it depends on, directly or by what it refers to. */
function dependsOn(name: string, seen = new Set<string>()): Set<string> {
  const [, resource] = resourcesOf(muster).find(([each]) => each === name) ?? []
  for (const { value, path } of walk(resource?.Properties ?? {})) {
    const at = path.at(-1)
    const named =
      at === 'Ref' || at === 'Fn::GetAtt'
        ? [String(Array.isArray(value) ? value[0] : value).split('.')[0] ?? '']
        : [...String(value).matchAll(/\$\{(\w+)/g)].map(([, each]) => each ?? '')
    for (const each of named) seen.add(each)
  }
  return seen
}

t.test('settings of the fleet are no part of a machine: they change without replacing one', async t => {
  const fleet = ['pMinWorkers', 'pMaxWorkers', 'pSpotPercent', 'pWorkerInstanceTypes']
  for (const machine of ['nodeA', 'nodeB', 'witness'])
    for (const part of ['LaunchTemplate', 'Group'])
      for (const parameter of fleet)
        t.notOk(dependsOn(machine + part).has(parameter), `${machine}${part}: ${parameter}`)
  for (const parameter of fleet) t.ok(dependsOn('fleetSettings').has(parameter), parameter)
  t.ok(dependsOn('nodeALaunchTemplate').has('fleetSettings'), 'a node knows where they are')
  const [, settings] = resourcesOf(muster).find(([name]) => name === 'fleetSettings') ?? []
  t.equal(settings?.Type, 'AWS::SSM::Parameter')
  const names = [...String(JSON.stringify(settings?.Properties)).matchAll(/MUSTER_\w+/g)].map(([name]) => name)
  t.same(names, ['MUSTER_MIN_WORKERS', 'MUSTER_MAX_WORKERS', 'MUSTER_EC2_INSTANCE_TYPES', 'MUSTER_EC2_SPOT_PERCENT'])

  const file = join(t.testdir({ 'fleet.env': names.map(name => `${name}=1\n`).join('') }), 'fleet.env')
  t.match(
    readSettings({ MUSTER_CONFIG_FILE: '/nonexistent', MUSTER_FLEET_SETTINGS_FILE: file }).pools,
    { default: { minWorkers: 1, maxWorkers: 1 } },
    'a node takes all of them',
  )
})

t.test('a node reads the settings of the fleet, and no other parameter', async t => {
  const role = resourcesOf(muster).find(([name]) => name === 'nodeRole')?.[1].Properties
  const reads = [...walk(role ?? {})].filter(({ value }) => (value as Mapping)?.Sid !== undefined)
  const statements = reads
    .map(({ value }) => value as Mapping)
    .filter(({ Action }) => /"ssm:Get/.test(JSON.stringify(Action)))
  t.same(statements, [
    {
      Sid: 'ReadFleetSettings',
      Effect: 'Allow',
      Action: 'ssm:GetParameter',
      Resource: {
        'Fn::Sub': 'arn:${AWS::Partition}:ssm:${AWS::Region}:${AWS::AccountId}:parameter/${fleetSettings}',
      },
    },
  ])
})

t.test('an image that is kept goes before the newest, on every machine', async t => {
  const kept = (processor: string) => ({
    'Fn::If': [`CondKept${processor}Image`, { Ref: `pKept${processor}ImageId` }, { Ref: `p${processor}Image` }],
  })
  const imageOf = (machine: string) => {
    const [, template] = resourcesOf(muster).find(([name]) => name === `${machine}LaunchTemplate`) ?? []
    return (template?.Properties.LaunchTemplateData as Mapping | undefined)?.ImageId
  }
  t.same(imageOf('witness'), kept('Arm'))
  for (const [machine, kind] of Object.entries({ nodeA: 'Node', nodeB: 'Node', worker: 'Worker' }))
    t.same(
      imageOf(machine),
      {
        'Fn::If': [
          `Cond${kind}Image`,
          { Ref: `p${kind}ImageId` },
          { 'Fn::If': [`CondArm${kind}s`, kept('Arm'), kept('Intel')] },
        ],
      },
      machine,
    )
})
