/** The machines that are simulated behind the instances: they boot from real user data, and live and end as EC2's do. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdtemp, readFile, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { RunInstancesCommandInput } from '@aws-sdk/client-ec2'
import t from 'tap'
import { processesOf } from '../support/aws/machine-processes.ts'
import type { SimulatedInstance } from '../support/aws/simulated-instance.ts'
import { startSimulator } from '../support/aws/simulator.ts'
import { startAws } from '../support/aws/start-aws.ts'
import { isAlive } from '../support/is-alive.ts'
import { until } from '../support/until.ts'

const { front, ec2 } = await startAws(t)
const simulator = await startSimulator(t, {
  front,
  pollMs: 50,
  graceMs: 300,
  environment: { STAND: 'test' },
  prepareDisk: async root => {
    await writeFile(join(root, 'image'), 'from the image\n')
  },
})
t.beforeEach(async () => {
  await front.reset()
  await simulator.reset()
})

/** Launches an instance with this user data and waits for its machine. */
const launch = async (script: string, input: Partial<RunInstancesCommandInput> = {}): Promise<SimulatedInstance> => {
  const { Instances = [] } = await ec2.runInstances({
    ImageId: 'ami-1',
    InstanceType: 'c5.large',
    MinCount: 1,
    MaxCount: 1,
    UserData: Buffer.from(script).toString('base64'),
    InstanceInitiatedShutdownBehavior: 'terminate',
    MetadataOptions: { HttpTokens: 'required', InstanceMetadataTags: 'enabled' },
    ...input,
  })
  const id = Instances[0]?.InstanceId ?? ''
  await until(() => simulator.instances().some(machine => machine.id === id))
  return simulator.get(id)
}
const spot = { InstanceMarketOptions: { MarketType: 'spot' as const } }
const says = async (machine: SimulatedInstance, text: string): Promise<void> =>
  await until(() => machine.console().includes(text)).catch(() => {
    throw new Error(`"${text}" is not on the console:\n${machine.console()}`)
  })
const described = async (machine: SimulatedInstance) => {
  const { Reservations = [] } = await ec2.describeInstances({ InstanceIds: [machine.id] })
  const { State, StateReason } = Reservations[0]?.Instances?.[0] ?? {}
  return `${State?.Name} ${StateReason?.Code}`
}
const isGone = async (machine: SimulatedInstance): Promise<void> => await until(() => machine.state === 'gone')

const sleeper = '#!/bin/bash\ntrap "echo told to end; exit" TERM\necho up\nwhile :; do sleep 0.05; done\n'

t.test('a machine boots from its user data and knows what it is', async t => {
  const machine = await launch(
    `#!/bin/bash
    at=$AWS_EC2_METADATA_SERVICE_ENDPOINT/latest
    curl -s -o /dev/null -w 'without a token: %{http_code}\\n' "$at/meta-data/instance-id"
    curl -s -X PUT -o /dev/null -w 'without a TTL: %{http_code}\\n' "$at/api/token"
    token=$(curl -s -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' "$at/api/token")
    ask() { echo "$1: $(curl -s -w ' %{http_code}' -H "X-aws-ec2-metadata-token: $token" "$at/$1")"; }
    for path in instance-id instance-life-cycle placement/availability-zone instance-type tags/instance/pool \\
      spot/instance-action events/recommendations/rebalance iam/security-credentials/ nonsense; do
      ask meta-data/$path
    done
    ask dynamic/instance-identity/document
    mkdir -p "\${MUSTER_ROOT:-}/opt/muster"
    cp "$MUSTER_ROOT/image" "$MUSTER_ROOT/opt/muster/copy"
    echo "home $HOME stand $STAND key \${AWS_ACCESS_KEY_ID:-none}"
    echo done
    sleep 300`,
    { ...spot, TagSpecifications: [{ ResourceType: 'instance', Tags: [{ Key: 'pool', Value: 'default' }] }] },
  )
  await says(machine, 'done\n')
  const text = machine.console()
  t.match(text, 'without a token: 401')
  t.match(text, 'without a TTL: 400')
  t.match(text, `instance-id: ${machine.id} 200`)
  t.match(text, 'instance-life-cycle: spot 200')
  t.match(text, 'placement/availability-zone: us-east-1a 200')
  t.match(text, 'instance-type: c5.large 200')
  t.match(text, 'tags/instance/pool: default 200')
  t.match(text, /instance-action: .*404/)
  t.match(text, /rebalance: .*404/)
  t.match(text, /nonsense: .*404/)
  t.match(text, `"instanceId":"${machine.id}"`)
  t.match(text, `home ${machine.root}/root stand test key none`)
  t.equal(await readFile(join(machine.root, 'opt/muster/copy'), 'utf8'), 'from the image\n')
  t.ok((machine.bootedAt ?? 0) >= machine.seenAt)
  const { Output = '' } = await ec2.getConsoleOutput({ InstanceId: machine.id })
  t.match(Buffer.from(Output, 'base64').toString(), 'without a token: 401', 'on the console of EC2 too')
  t.equal(
    front.calls.filter(({ action }) => action === 'DescribeInstances').length,
    0,
    'the simulator is not on record',
  )
})

t.test('terminated: SIGTERM to all, SIGKILL to who does not go', async t => {
  const script = `#!/bin/bash
    trap 'echo told to end; exit' TERM
    setsid bash -c 'trap "" TERM; echo stubborn $$; while :; do sleep 0.05; done' &
    while :; do sleep 0.05; done`
  const machine = await launch(script)
  await says(machine, 'stubborn ')
  const pid = Number(/stubborn (\d+)/.exec(machine.console())?.[1])
  t.ok(isAlive(pid))
  await ec2.terminateInstances({ InstanceIds: [machine.id] })
  await isGone(machine)
  t.match(machine.console(), 'told to end')
  t.notOk(isAlive(pid), 'though it left the process group')
  t.equal(machine.endedBy, 'terminated')
  t.notOk(existsSync(machine.root))
  t.same(simulator.running(), [])
})

t.test('what ends from within ends its instance, as its shutdown behaviour says', async t => {
  const off = await launch('#!/bin/bash\necho going\nshutdown -h now\nsleep 300\n')
  await isGone(off)
  t.equal(off.endedBy, 'power-off')
  await until(async () => (await described(off)) === 'terminated Client.InstanceInitiatedShutdown')

  const stop = await launch('#!/bin/bash\npoweroff\nsleep 300\n', { InstanceInitiatedShutdownBehavior: 'stop' })
  await until(async () => (await described(stop)) === 'stopped Client.InstanceInitiatedShutdown')

  const ended = await launch('#!/bin/bash\nsleep 0.2 &\nexit 3\n')
  await isGone(ended)
  t.equal(ended.endedBy, 'all-ended')
  t.match(ended.console(), 'ended with 3')
  await until(async () => (await described(ended)).startsWith('terminated'))

  const later = await launch('#!/bin/bash\nshutdown -P +1\nshutdown -c\necho cancelled\nsleep 300\n')
  await says(later, 'cancelled')
  t.equal(later.state, 'booted')
})

t.test('a service runs as under systemd', async t => {
  const machine = await launch(`#!/bin/bash
    export FROM_USER_DATA=1
    mkdir -p "$MUSTER_ROOT/etc/systemd/system" "$MUSTER_ROOT/opt"
    printf 'A=1\\nB="two words"\\n# C=3\\n' >"$MUSTER_ROOT/etc/env"
    cat >"$MUSTER_ROOT/opt/worker" <<'END'
#!/bin/bash
echo "A=$A B=$B D=$D E=$E leaked=\${FROM_USER_DATA:-no} imds=\${AWS_EC2_METADATA_SERVICE_ENDPOINT:+yes} args=$*"
if [ ! -e "$HOME/ran" ]; then touch "$HOME/ran"; exit 1; fi
trap 'echo worker told; exit 0' TERM
echo worker up
while :; do sleep 0.05; done
END
    chmod +x "$MUSTER_ROOT/opt/worker"
    cat >"$MUSTER_ROOT/etc/systemd/system/worker.service" <<'END'
[Service]
Environment="D=with space" E=$cash
EnvironmentFile=/etc/env
EnvironmentFile=-/etc/missing
ExecStart=/opt/worker \\
  --one 'two three'
ExecStopPost=/bin/echo post
Restart=on-failure
RestartSec=0.05
SuccessAction=poweroff
END
    systemctl daemon-reload
    systemctl enable --now worker
    until systemctl is-active worker; do sleep 0.1; done
    systemctl start nobody.service || echo "nobody: $?"`)
  await says(machine, 'worker up')
  await says(machine, 'nobody: ')
  const text = machine.console()
  t.match(text, 'A=1 B=two words D=with space E=$cash leaked=no imds=yes args=--one two three')
  t.match(text, 'worker.service ended with 1')
  t.match(text, 'nobody: 5')
  t.match(text, /^active$/m)
  t.equal(machine.state, 'booted', 'the user data ended, the machine did not')
  await ec2.terminateInstances({ InstanceIds: [machine.id] })
  await isGone(machine)
  t.match(machine.console(), 'worker told')

  const oneOff = await launch(`#!/bin/bash
    mkdir -p "$MUSTER_ROOT/etc/systemd/system"
    printf '[Service]\\nExecStart=/bin/sh -c "echo worked"\\nSuccessAction=poweroff\\n' \\
      >"$MUSTER_ROOT/etc/systemd/system/once.service"
    apt-get install everything || echo "apt-get: $?"
    systemctl start once; sleep 300`)
  await isGone(oneOff)
  t.match(oneOff.console(), 'worked')
  t.match(oneOff.console(), 'apt-get: 1')
  t.equal(oneOff.endedBy, 'power-off', 'SuccessAction')

  const broken = await launch(`#!/bin/bash
    cat >"$MUSTER_ROOT/etc/broken.env" <<'END'
WORD="a \\"b\\" \\$c"
END
    mkdir -p "$MUSTER_ROOT/etc/systemd/system"
    cat >"$MUSTER_ROOT/etc/systemd/system/broken.service" <<'END'
StartLimitBurst=3
FailureAction=poweroff
EnvironmentFile=/etc/broken.env
ExecStart=/bin/sh -c 'echo "try $WORD"; exit 7'
Restart=on-failure
RestartSec=0.01
END
    systemctl start broken`)
  await isGone(broken)
  t.equal(broken.console().split('try a "b" $c').length - 1, 3, 'StartLimitBurst')
  t.equal(broken.endedBy, 'power-off', 'FailureAction')
})

t.test('a machine boots late or never', async t => {
  simulator.bootDelayMs = ({ type }) => (type === 'm5.large' ? 400 : 0)
  simulator.neverBoots(({ tags }) => tags.broken === 'yes')
  const late = await launch(sleeper, { InstanceType: 'm5.large' })
  const tags = [{ ResourceType: 'instance' as const, Tags: [{ Key: 'broken', Value: 'yes' }] }]
  const never = await launch(sleeper, { TagSpecifications: tags })
  await says(late, 'up')
  t.ok((late.bootedAt ?? 0) - late.seenAt >= 400)
  t.same([never.state, never.console(), never.pid], ['waiting', '', undefined])
  t.same(simulator.running(), [late])
  t.same(await described(never), 'running ')
  await ec2.terminateInstances({ InstanceIds: [never.id] })
  await isGone(never)
})

t.test('a Spot instance is noticed, then taken away', async t => {
  const machine = await launch(
    `#!/bin/bash
    at=$AWS_EC2_METADATA_SERVICE_ENDPOINT/latest
    token=$(curl -s -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' "$at/api/token")
    ask() { curl -sf -H "X-aws-ec2-metadata-token: $token" "$at/meta-data/$1"; }
    echo ready
    while :; do
      ask events/recommendations/rebalance && ask spot/instance-action && ask spot/termination-time
      sleep 0.05
    done`,
    spot,
  )
  const onDemand = await launch(sleeper)
  await says(machine, 'ready')
  await says(onDemand, 'up')
  t.throws(() => simulator.interrupt(onDemand.id, 100), /no Spot instance/)
  simulator.rebalance(machine.id)
  simulator.interrupt(machine.id, 5000)
  await says(machine, '"action":"terminate"')
  t.match(machine.console(), /"noticeTime":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"/)
  await isGone(machine)
  t.equal(await described(machine), 'terminated Server.SpotInstanceTermination')
  t.equal(machine.endedBy, 'interrupted')
})

t.test('a machine crashes or freezes', async t => {
  const first = await launch(sleeper)
  const second = await launch(
    '#!/bin/bash\ntrap "echo told to end; exit" TERM\nwhile :; do date +%N >"$HOME/beat"; sleep 0.02; done\n',
  )
  await says(first, 'up')
  await simulator.crash(first.id)
  t.equal(first.state, 'gone')
  t.notMatch(first.console(), 'told to end')
  t.equal(await described(first), 'terminated Server.InternalError')

  const beat = join(second.root, 'root/beat')
  const read = async (): Promise<string> => await readFile(beat, 'utf8').catch(() => '')
  const beats = async (): Promise<boolean> => {
    const before = await read()
    // pause: whether it does nothing shows only in time
    return await until(async () => !['', before].includes(await read()), 500).then(
      () => true,
      () => false,
    )
  }
  await until(() => existsSync(beat))
  simulator.freeze(second.id)
  await until(async () => !(await beats()))
  t.equal(await described(second), 'running ')
  simulator.thaw(second.id)
  await until(beats)
  simulator.freeze(second.id)
  await ec2.terminateInstances({ InstanceIds: [second.id] })
  await isGone(second)
})

t.test('when the test is killed, its machines die', async t => {
  const folder = await mkdtemp(join(tmpdir(), 'muster-machines-'))
  const module = new URL('../support/aws/machine-processes.ts', import.meta.url).href
  const program = `
    import { spawn } from 'node:child_process'
    import { markVariable, startWarden } from '${module}'
    startWarden('${folder}')
    spawn('bash', ['-c', 'sleep 300 & sleep 300'], {
      env: { PATH: process.env.PATH, [markVariable]: '${folder}/i-1/' }, detached: true, stdio: 'ignore',
    })
    setInterval(() => undefined, 1000)`
  const child = spawn(process.execPath, [...process.execArgv, '--input-type=module', '-e', program], {
    stdio: 'inherit',
  })
  const gone = once(child, 'exit')
  t.teardown(() => void child.kill('SIGKILL'))
  await until(() => processesOf(`${folder}/`).length === 3)
  child.kill('SIGKILL')
  await gone
  await until(() => processesOf(`${folder}/`).length === 0 && !existsSync(folder))
  t.same(processesOf(`${folder}/`), [])
})
