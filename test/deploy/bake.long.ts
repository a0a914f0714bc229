/**
 * scripts/bake-ami.sh against the emulated EC2, with the AWS CLI. What the emulator has not, a builder that runs, is put in
 * before the CLI: it powers off when it is looked at, and its console says what the test wants. And deploy/boot/make-image.sh,
 * every line of it, with stubs for what would change this machine.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { chmod, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { EC2 } from '@aws-sdk/client-ec2'
import { CreateBucketCommand, S3Client } from '@aws-sdk/client-s3'
import t from 'tap'
import { startMoto } from '../support/aws/moto.ts'
import { haveTool } from '../support/have-tool.ts'
import { patienceMs } from '../support/until.ts'

process.env.AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED = 'true'
const root = fileURLToPath(new URL('../../', import.meta.url))
const moto = await startMoto(t)
const shared = { region: 'eu-central-1', endpoint: moto.url, credentials: { accessKeyId: 't', secretAccessKey: 't' } }
const ec2 = new EC2({ ...shared, maxAttempts: 1 })
const s3 = new S3Client({ ...shared, forcePathStyle: true })
t.teardown(() => {
  ec2.destroy()
  s3.destroy()
})
const work = await mkdtemp(join(tmpdir(), 'muster-bake-'))
t.teardown(() => rm(work, { recursive: true, force: true }))

async function run(program: string, args: readonly string[], env: Record<string, string | undefined>) {
  const child = spawn(program, args, { env, stdio: ['ignore', 'pipe', 'pipe'] })
  let said = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk: Buffer) => (said += chunk))
  const timer = setTimeout(() => child.kill('SIGKILL'), patienceMs)
  const [code] = (await once(child, 'close')) as [number | null]
  clearTimeout(timer)
  return { code, said }
}

const bin = join(work, 'bin')
await mkdir(bin)
const front = `#!/bin/bash
case "$1 $2" in
"ec2 describe-instances")
  if [ "$BUILDER_RUNS_ON" != yes ]; then "$REAL_AWS" ec2 stop-instances --region "$AWS_REGION" --instance-ids "$4" >/dev/null; fi ;;
"ec2 get-console-output") printf '%s\\n' "boot" "$CONSOLE"; exit 0 ;;
"ec2 create-image")
  if [ "$NO_IMAGE" = yes ]; then echo 'An error occurred (UnauthorizedOperation) when calling the CreateImage operation: no' >&2; exit 254; fi ;;
esac
# The emulator takes the tags of the image only, not those of its snapshots.
for word; do
  shift
  case "$word" in ResourceType=snapshot,*) continue ;; esac
  set -- "$@" "$word"
done
exec "$REAL_AWS" "$@"
`
await writeFile(join(bin, 'aws'), front)
await chmod(join(bin, 'aws'), 0o755)

const bundle = join(work, 'bundle.tgz')

async function bake(more: Record<string, string>, ...args: string[]) {
  const env = {
    ...{ PATH: `${bin}:${process.env.PATH}`, HOME: work, AWS_ENDPOINT_URL: moto.url, AWS_REGION: shared.region },
    ...{ AWS_ACCESS_KEY_ID: 't', AWS_SECRET_ACCESS_KEY: 't', CONSOLE: 'muster-bake: ready', REAL_AWS: realAws },
    ...{ MUSTER_SETUP_PAUSE: '0.1', MUSTER_BAKE_CONSOLE_SECONDS: '1', ...more },
  }
  const options = ['--bundle', bundle, '--bucket', 'bundles', '--yes', ...args]
  return await run('bash', [join(root, 'scripts/bake-ami.sh'), ...options], env)
}
const images = async () => (await ec2.describeImages({ Owners: ['self'] })).Images ?? []
const instances = async () =>
  ((await ec2.describeInstances({})).Reservations ?? []).flatMap(({ Instances = [] }) => Instances)
const running = async (): Promise<number> =>
  (await instances()).filter(({ State }) => State?.Name !== 'terminated').length

const realAws = (await run('bash', ['-c', 'command -v aws'], process.env)).said.trim()

if (haveTool(t, 'aws', 'pip install awscli')) {
  t.before(async () => {
    // A small bundle: what the script looks at is there.
    const content = join(work, 'content')
    await mkdir(join(content, 'deploy/boot'), { recursive: true })
    await mkdir(join(content, 'dist'))
    await writeFile(join(content, 'deploy/boot/node-boot.sh'), '')
    await writeFile(join(content, 'dist/cli.js'), "console.log('9.8.7')\n")
    await run('tar', ['-czf', bundle, '-C', content, '.'], process.env)
    const CreateBucketConfiguration = { LocationConstraint: 'eu-central-1' } as const
    await s3.send(new CreateBucketCommand({ Bucket: 'bundles', CreateBucketConfiguration }))
  })

  t.test('a dry run makes nothing', async t => {
    const { code, said } = await bake({}, '--dry-run')
    t.equal(code, 0, said)
    t.match(said, /To be made: from ami-\w+, by a t4g\.small/)
    t.same([(await images()).length, (await instances()).length], [0, 0])
  })

  t.test('an image, its tags, its use; and no builder any more', async t => {
    const { code, said } = await bake({})
    t.equal(code, 0, said)
    const [image, ...others] = await images()
    t.same(others, [])
    t.match(said, `--worker-ami ${image?.ImageId}`)
    const tags = new Map(image?.Tags?.map(({ Key, Value }) => [Key, Value]))
    t.equal(tags.get('muster:version'), '9.8.7')
    t.match(tags.get('muster:bundle'), /^[0-9a-f]{64}$/)
    t.equal(await running(), 0)
    const [builder] = await instances()
    const { UserData } = await ec2.describeInstanceAttribute({ InstanceId: builder?.InstanceId, Attribute: 'userData' })
    const script = Buffer.from(UserData?.Value ?? '', 'base64').toString()
    t.match(script, /^bundle_url='http\S+bundles\/bundles\/9\.8\.7\S+'$/m)
    t.match(script, `bundle_sha256='${tags.get('muster:bundle')}'`)
    t.notMatch(script, '@@')
    t.notMatch(said, /Signature=/, 'who reads this cannot fetch the bundle by it')
  })

  t.test('another run names it, and makes none; --force does', async t => {
    const again = await bake({})
    t.equal(again.code, 0, again.said)
    t.match(again.said, /there is one: ami-\w+/)
    t.equal((await images()).length, 1)
    t.equal((await bake({}, '--force')).code, 0)
    t.equal((await images()).length, 2)
  })

  t.test('--delete removes images of that version, and their snapshots', async t => {
    t.equal((await bake({}, '--delete', '1.1.1')).code, 11)
    t.equal((await images()).length, 2)
    const mine = (await images()).flatMap(one => one.BlockDeviceMappings ?? []).map(({ Ebs }) => Ebs?.SnapshotId)
    t.equal((await bake({}, '--delete', '9.8.7')).code, 0)
    t.equal((await images()).length, 0)
    const { Snapshots = [] } = await ec2.describeSnapshots({ OwnerIds: ['self'] })
    t.same(
      Snapshots.filter(({ SnapshotId }) => mine.includes(SnapshotId)),
      [],
    )
  })

  t.test('whatever fails says its step, why, and what to do; the builder goes', async t => {
    const cases: [Record<string, string>, string[], number, RegExp][] = [
      [
        { CONSOLE: 'muster-bake: failed: no Node.js' },
        [],
        7,
        /Failed: preparing the builder.\nWhy: .*no Node\.js.*\nWhat to do: /,
      ],
      [{ CONSOLE: 'Linux' }, [], 7, /does not say how it went/],
      [{ BUILDER_RUNS_ON: 'yes' }, ['--timeout', '0'], 13, /does not finish within 0 minutes/],
      [{ NO_IMAGE: 'yes' }, [], 4, /Failed: making the image.\nWhy: you may not call ec2:CreateImage/],
      [{}, ['--bucket', 'no-such-bucket'], 14, /Failed: uploading the bundle[\s\S]*deploy first/],
      [{}, ['--arch', 'z80'], 2, /--arch is arm64 or x86_64/],
    ]
    for (const [more, args, exit, message] of cases) {
      const { code, said } = await bake(more, ...args)
      t.equal(code, exit, said)
      t.match(said, message)
      t.equal(await running(), 0, 'no builder is left')
    }
    t.equal((await images()).length, 0)
  })
}

t.test('the builder: what is prepared, and what does not go into an image', async t => {
  const machine = join(work, 'machine')
  const stubs = join(work, 'stubs')
  const state = join(work, 'state')
  for (const folder of [join(machine, 'etc/ssh'), join(machine, 'opt'), stubs, state])
    await mkdir(folder, { recursive: true })
  await writeFile(join(machine, 'etc/ssh/ssh_host_rsa_key'), 'key')
  for (const name of ['dnf', 'systemctl', 'useradd', 'getent', 'chown', 'cloud-init', 'shutdown', 'cfn-signal', 'sync'])
    await symlink(join(root, 'test/support/boot/stub.sh'), join(stubs, name))
  await run('tar', ['-czf', join(work, 'real.tgz'), '-C', root, 'deploy', 'package.json'], process.env)
  const sha = (await run('sha256sum', [join(work, 'real.tgz')], process.env)).said.split(' ')[0] ?? ''
  const text = await readFile(join(root, 'deploy/user-data/bake.sh'), 'utf8')
  const boot = async (sha256: string) => {
    const file = join(work, 'user-data')
    await writeFile(
      file,
      text.replace('@@BUNDLE_URL@@', `file://${work}/real.tgz`).replace('@@BUNDLE_SHA256@@', sha256),
    )
    const env = {
      PATH: `${stubs}:${process.env.PATH}`,
      MUSTER_ROOT: machine,
      STUB_STATE: state,
      MUSTER_BOOT_PAUSE: '0',
    }
    return await run('bash', [file], env)
  }
  const { code, said } = await boot(sha)
  t.equal(code, 0, said)
  t.match(said, /muster-bake: ready\n/)
  const calls = await readFile(join(state, 'calls'), 'utf8')
  t.match(calls, /dnf install -y amazon-cloudwatch-agent/)
  t.match(calls, /cloud-init clean --logs\nsync \nsync \nshutdown -h now/)
  t.notMatch(calls, /systemctl (?:enable|start)/, 'what it is to be, a machine hears from its own user data')
  for (const unit of ['muster-node', 'muster-redis', 'muster-worker'])
    t.ok(existsSync(join(machine, 'etc/systemd/system', `${unit}.service`)))
  t.equal(await readFile(join(machine, 'etc/machine-id'), 'utf8'), '', 'each machine gets one of its own')
  t.notOk(existsSync(join(machine, 'etc/muster/machine.env')))
  t.notOk(existsSync(join(machine, 'etc/ssh/ssh_host_rsa_key')))

  const other = await boot('0'.repeat(64))
  t.equal(other.code, 1)
  t.match(other.said, 'muster-bake: failed: the bundle is not the one that was uploaded')
})
