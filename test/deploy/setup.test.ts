/**
 * setup.sh, with the AWS CLI, from the first deployment to the last trace: made, updated, looked at, deleted. The emulator has no
 * machines: the job goes through a node that runs here, and, by way of Systems Manager, nowhere.
 */
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { CloudWatch } from '@aws-sdk/client-cloudwatch'
import t from 'tap'
import { startAws } from '../support/aws/start-aws.ts'
import { haveTool } from '../support/have-tool.ts'
import { startNodeProcess } from '../support/node-process.ts'
import { prepareSetup } from '../support/setup-run.ts'
import { leftIn } from '../support/what-is-left.ts'

const operatorKey = 'a-key-that-nobody-may-ever-see-in-a-log'
const root = fileURLToPath(new URL('../../', import.meta.url))
const { front, ec2, access } = await startAws(t)
const cloudWatch = new CloudWatch(access)
t.teardown(() => cloudWatch.destroy())

if (haveTool(t, 'aws', 'pip install awscli')) {
  const setup = prepareSetup(t, front)
  const keyFile = join(setup.folder, 'key')
  writeFileSync(keyFile, `${operatorKey}\n`, { mode: 0o600 })
  const node = await startNodeProcess(t, { MUSTER_OPERATOR_KEY_FILE: keyFile, MUSTER_MAX_WORKERS: '1' })
  const throughNode = { MUSTER_SMOKE_URLS: node.url, MUSTER_SMOKE_KEY_FILE: keyFile }
  // A file with a relative import, which travels with it.
  const handlersFile = join(setup.folder, 'my-handlers.ts')
  const writeHandlers = (type: string): void => {
    writeFileSync(join(setup.folder, 'greeting.ts'), `export const type: string = '${type}'\n`)
    writeFileSync(
      handlersFile,
      `import { defineHandler } from 'muster'
import { type } from './greeting.ts'
export const own = defineHandler({ type, handle: async () => 'hello' })\n`,
    )
  }
  const authorization = { authorization: `Bearer ${operatorKey}` }
  const always = ['--yes', '--name', 'm1', '--bundle', setup.bundle]
  const left = leftIn(access, ec2)
  const before = await left()
  const made = (action: string): number =>
    front.calls.filter(call => call.action === action && call.outcome === 'ok').length

  t.test('one command makes a deployment', async t => {
    front.quotas.set('L-1216C47A', 10)
    front.quotas.set('L-0263D0A3', 5)
    front.stacks.ofNext = { states: ['CREATE_IN_PROGRESS', 'CREATE_IN_PROGRESS', 'CREATE_COMPLETE'] }
    writeHandlers('greet')
    const args = [...always, '--client-cidr', '203.0.113.7/32', '--handlers', 'my-handlers.ts']
    const { code, output } = await setup.run(args, throughNode)
    t.equal(code, 0, output)
    t.match(output, /nodes and witness take 6, each worker up to 2/)
    t.match(output, /there is room for 2 On-Demand workers, not for 4\.\n.*--desired-value 14/)
    t.match(output, /nodes +2 × t4g\.medium \(arm64\) in us-east-1a and us-east-1b/)
    t.match(output, /the witness \(t4g\.small\) in us-east-1c/)
    t.match(output, /idle, an hour +0\.\d+ +about \d+ USD a month/)
    t.match(output, /CREATE_IN_PROGRESS {2}\d+ of \d+ parts/)
    t.match(output, `${node.url}: a job went in, its value came out`)
    t.match(output, /API +https:\/\/[\d.]+:5000\n/)
    t.match(output, /keys +the operator key is in Secrets Manager:\n +\S/, 'it says where the key is')
    t.match(output, /handlers +my-handlers\.ts, for the types .*greet/)
    t.match(output, /the handlers [0-9a-f]{64} are in force/)
    t.match(await (await fetch(`${node.url}/types`, { headers: authorization })).text(), '"greet"')
    const reply = await fetch(`${node.url}/status`, { headers: authorization })
    const { Uncollected } = (await reply.json()) as { Uncollected: number }
    t.equal(Uncollected, 0, 'nothing of the smoke test is left for others to collect')
  })

  t.test('run again, it updates; what is not named stays', async t => {
    writeHandlers('greetAgain')
    const { code, output } = await setup.run([...always, '--max-workers', '6', '--handlers', handlersFile])
    t.equal(code, 0, output)
    t.match(output, /workers +0 to 6/)
    t.match(output, /clients: 203\.0\.113\.7\/32/)
    t.match(output, /by Systems Manager[\s\S]*both nodes: the command ended well[^\n]*no job was seen/)
    t.equal(made('ExecuteChangeSet'), 1)
    t.equal(made('CreateSecret'), 1, 'the secret is the one that it was')
    t.match(output, /a node fetches them, by Systems Manager[\s\S]*the node i-\w+: the command ended well/)
    const [, digest = 'none'] = /s3api put-object .* --key handlers\/([0-9a-f]{64})\.mjs/.exec(setup.calls()) ?? []
    t.match(setup.calls(), `s3api delete-object --bucket m1-muster-123456789012-us-east-1 --key handlers/${digest}.mjs`)
  })

  t.test('what the node is told to run for them works there', async t => {
    const [line = '{}'] = setup.calls().match(/^\{"commands":.*put-handlers\.mjs.*$/m) ?? []
    const { commands } = JSON.parse(line) as { commands: [string] }
    const fetched = join(setup.folder, 'fetched.mjs')
    execFileSync(process.execPath, [join(root, 'dist/cli.js'), 'handlers', 'bundle', handlersFile, '--out', fetched])
    const bin = join(setup.folder, 'bin-of-a-node')
    mkdirSync(bin)
    // What the bucket gives, to the file that is named last.
    writeFileSync(join(bin, 'aws'), `#!/bin/sh\nfor last; do :; done\ncp '${fetched}' "$last"\n`, { mode: 0o755 })
    const file = join(setup.folder, 'on-a-node.mjs')
    const here = commands[0]
      .replaceAll('/run/muster-handlers.mjs', file)
      .replace('/opt/muster/', root)
      .replace('https://127.0.0.1:5000', node.url)
      .replace('/etc/muster/operator-key', keyFile)
      .replace(/--ca \S+ /, '')
    const env = { PATH: `${bin}:${dirname(process.execPath)}:${process.env.PATH}` }
    const said = execFileSync('/bin/sh', ['-c', here], { env, encoding: 'utf8' })
    t.match(said, /the handlers [0-9a-f]{64} are in force/)
    t.match(await (await fetch(`${node.url}/types`, { headers: authorization })).text(), '"greetAgain"')
    t.notOk(existsSync(file), 'and nothing is left of it')
  })

  t.test('handlers that cannot be used are refused before anything is changed', async t => {
    const changes = front.calls.length
    writeFileSync(handlersFile, `import './missing.ts'\n`)
    const broken = await setup.run([...always, '--handlers', handlersFile])
    t.equal(broken.code, 10, broken.output)
    t.match(broken.output, /Could not resolve "\.\/missing\.ts"/)
    const absent = await setup.run([...always, '--handlers', 'nowhere.ts'])
    t.equal(absent.code, 2, absent.output)
    t.match(absent.output, /there is no file nowhere\.ts/)
    t.equal((await setup.run(['--status', '--handlers', handlersFile])).code, 2)
    const changing = /^(Put|Create|Execute|Send|Delete|Update)/
    t.same(
      front.calls.slice(changes).filter(({ action }) => changing.test(action)),
      [],
    )
  })

  t.test('what would lose the queue is refused', async t => {
    const { code, output } = await setup.run([...always, '--elasticache'])
    t.equal(code, 2, output)
    t.match(output, /m1 has chosen who keeps the queue: jobs would be lost/)
  })

  t.test('it says how it is, and what is not well', async t => {
    const alarm = { Namespace: 'Muster', MetricName: 'NodeUp', EvaluationPeriods: 1, Period: 60, Statistic: 'Sum' }
    for (const AlarmName of ['m1-nodeDownAlarm-1', 'm1-other-nodeDownAlarm-1'])
      await cloudWatch.putMetricAlarm({
        ...{ ...alarm, AlarmName, Statistic: 'Sum', Threshold: 2, ComparisonOperator: 'LessThanThreshold' },
      })
    await cloudWatch.setAlarmState({ AlarmName: 'm1-other-nodeDownAlarm-1', StateValue: 'ALARM', StateReason: 'test' })
    front.stacks.alarms = ['m1-nodeDownAlarm-1']
    const { code, output } = await setup.run(['--status', '--name', 'm1'], throughNode)
    t.equal(code, 0, output)
    t.match(output, /none of 1 is raised/, 'the alarm of m1-other is none of this deployment')
    t.match(output, /stack +UPDATE_COMPLETE/)
    for (const machine of ['node-a', 'node-b', 'witness']) t.match(output, new RegExp(`${machine} +running, i-`))
    t.match(output, /fleet +0 instances, of at most 6/)
    t.match(output, `answers     ${node.url}`)
    t.match(output, /payloads +s3:\/\/m1-payloadbucket/)

    // By its name: moto puts another in the place of one that ends.
    const filters = [{ Name: 'tag:Name', Values: ['m1-node-b'] }]
    const { Reservations = [] } = await ec2.describeInstances({ Filters: filters })
    const Resources = Reservations.flatMap(({ Instances = [] }) => Instances.map(({ InstanceId = '' }) => InstanceId))
    await ec2.createTags({ Resources, Tags: [{ Key: 'Name', Value: 'm1-other' }] })
    const without = await setup.run(['--status', '--name', 'm1'], throughNode)
    await ec2.createTags({ Resources, Tags: [{ Key: 'Name', Value: 'm1-node-b' }] })
    t.equal(without.code, 12, without.output)
    t.match(without.output, /node-b +gone/)
    await cloudWatch.deleteAlarms({ AlarmNames: ['m1-nodeDownAlarm-1', 'm1-other-nodeDownAlarm-1'] })
  })

  t.test('deleted, it leaves nothing', async t => {
    const Tags = [
      { Key: 'muster:deployment', Value: 'm1' },
      { Key: 'muster:pool', Value: 'default' },
    ]
    await ec2.runInstances({
      ...{ ImageId: 'ami-12c6146b', InstanceType: 'c6i.large', MinCount: 1, MaxCount: 1 },
      TagSpecifications: [{ ResourceType: 'instance', Tags }],
    })
    const TagSpecifications = [{ ResourceType: 'volume' as const, Tags }]
    await ec2.createVolume({ AvailabilityZone: 'us-east-1a', Size: 8, TagSpecifications })
    await left.fillBuckets('m1')

    const asked = await setup.run(['--delete', '--name', 'm1'])
    t.equal(asked.code, 9, 'not without being told yes')
    const { code, output } = await setup.run(['--delete', '--yes', '--name', 'm1'])
    t.equal(code, 0, output)
    t.match(output, /1 workers/)
    t.same(await left(), before)
    const calls = front.calls.map(({ action }) => action)
    t.ok(calls.lastIndexOf('UpdateAutoScalingGroup') < calls.lastIndexOf('TerminateInstances'), 'nodes end first')

    const again = await setup.run(['--delete', '--yes', '--name', 'm1'])
    t.equal(again.code, 0, again.output)
  })

  t.test('no secret was in an argument, and nothing is left on this machine', t => {
    t.match(setup.calls(), 'secretsmanager create-secret')
    t.notMatch(setup.calls(), /BEGIN|passwords|caKey/)
    t.notMatch(setup.calls(), operatorKey)
    t.same(
      readdirSync(setup.folder).filter(name => name.startsWith('muster-setup')),
      [],
    )
    t.end()
  })
}
