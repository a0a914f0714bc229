/** setup.sh where something is wrong before anything is made: it names the step and the cause, says what to do, and changes nothing. */
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { startAws } from '../support/aws/start-aws.ts'
import { haveTool } from '../support/have-tool.ts'
import { prepareSetup } from '../support/setup-run.ts'

const docs = readFileSync(new URL('../../docs/deploy.md', import.meta.url), 'utf8')
const { front } = await startAws(t)

if (haveTool(t, 'aws', 'pip install awscli')) {
  const setup = prepareSetup(t, front)
  const bundle = ['--bundle', setup.bundle]
  const changing = /^(PUT|POST|DELETE|Create|Put|Run|Execute|Update|Terminate)/
  const changesNothing = (name: string, body: (t: Test) => Promise<void>): void => {
    t.test(name, async t => {
      await body(t)
      const changes = front.calls.filter(({ action }) => changing.test(action)).map(({ action }) => action)
      t.same(changes, [], 'nothing was changed')
      front.calls.length = 0
      front.clearFaults()
    })
  }

  changesNothing('without a tool', async t => {
    const bin = join(setup.folder, 'few')
    mkdirSync(bin)
    for (const tool of ['bash', 'cat', 'dirname', 'mktemp', 'rm', 'grep', 'sed', 'tr', 'cut', 'printf']) {
      symlinkSync(`/usr/bin/${tool}`, join(bin, tool))
    }
    const { code, output } = await setup.run(bundle, { PATH: bin })
    t.equal(code, 3, output)
    t.match(output, /Why: node is missing\nWhat to do: install Node\.js 20/)
    t.equal(front.calls.length, 0)
  })

  changesNothing('with options that are wrong', async t => {
    for (const [args, why] of [
      [['--nonsense', 'x'], /--nonsense is unknown/],
      [['--max-workers', 'many'], /--max-workers is a number/],
      [['--name', 'Has Blanks'], /--name is/],
      [['--client-cidr', 'all'], /--client-cidr is a network/],
      [['--vpc', 'vpc-1'], /--vpc needs --subnets/],
      [['--status', '--delete'], /do not go together/],
      [['--bundle', '/nonexistent'], /there is no file/],
      [['--max-workers'], /needs a value/],
    ] as const) {
      const { code, output } = await setup.run(args)
      t.equal(code, 2, output)
      t.match(output, why)
    }
    t.equal(front.calls.length, 0)
  })

  changesNothing('help and documents tell every exit code', async t => {
    const { code, output } = await setup.run(['--help'])
    t.equal(code, 0)
    const script = readFileSync(new URL('../../scripts/lib/deploy/say.sh', import.meta.url), 'utf8')
    const codes = ['0', '1', ...[...script.matchAll(/EXIT_[A-Z]+=(\d+)/g)].map(match => match[1] ?? '')]
    t.equal(codes.length, 16)
    const section = output.slice(output.indexOf('Exit codes'))
    const inHelp = [...section.matchAll(/ (\d+) {2}\S/g)].map(match => match[1] ?? '')
    const inDocs = [...docs.matchAll(/^\| (\d+) \| /gm)].map(match => match[1] ?? '')
    t.same(inHelp.sort(), [...codes].sort())
    t.same(inDocs.sort(), [...codes].sort())
  })

  changesNothing('in a region that is none, without one, or with one that does not answer', async t => {
    const none = await setup.run([...bundle, '--region', 'Frankfurt'])
    t.equal(none.code, 2)
    t.match(none.output, /Frankfurt is no region of AWS/)
    const unset = await setup.run(bundle, { AWS_REGION: undefined })
    t.equal(unset.code, 2)
    t.match(unset.output, /no region is set/)
    const silent = await setup.run([...bundle, '--region', 'eu-nowhere-9'], {
      ...{ AWS_ENDPOINT_URL: 'http://127.0.0.1:9', AWS_MAX_ATTEMPTS: '1' },
    })
    t.equal(silent.code, 14)
    t.match(silent.output, /AWS does not answer in the region eu-nowhere-9/)
  })

  changesNothing('without credentials, or with some that have ended', async t => {
    const none = await setup.run(bundle, { AWS_ACCESS_KEY_ID: undefined, AWS_SECRET_ACCESS_KEY: undefined })
    t.equal(none.code, 4, none.output)
    t.match(none.output, /Failed: looking at the region and the credentials\.\nWhy: there are no credentials/)
    front.fail({ action: 'GetCallerIdentity', error: { status: 403, code: 'ExpiredToken', message: 'It is over.' } })
    const ended = await setup.run(bundle)
    t.equal(ended.code, 4, ended.output)
    t.match(ended.output, /does not take these credentials \(ExpiredToken\)/)
  })

  changesNothing('without the right to one action', async t => {
    front.fail({
      action: 'DescribeInstanceTypes',
      error: { status: 403, code: 'UnauthorizedOperation', message: 'No.' },
    })
    const { code, output } = await setup.run([...bundle, '--dry-run'])
    t.equal(code, 4, output)
    t.match(
      output,
      /Failed: looking at instance types, zones and quotas\.\nWhy: you may not call ec2:DescribeInstanceTypes/,
    )
    t.match(output, /What to do: have the permission ec2:DescribeInstanceTypes given/)
  })

  changesNothing('with a quota of zero, or that of a new account', async t => {
    for (const quota of [0, 5]) {
      front.quotas.set('L-1216C47A', quota)
      const { code, output } = await setup.run([...bundle, '--yes'])
      t.equal(code, 5, output)
      t.match(output, new RegExp(`need 6 vCPUs, and 2 more for each worker; this account may run ${quota} On-Demand`))
      t.match(
        output,
        /request-service-quota-increase --region us-east-1 --service-code ec2 --quota-code L-1216C47A --desired-value 14/,
      )
    }
  })

  changesNothing('with types that do not fit', async t => {
    const unknown = await setup.run([...bundle, '--instance-type', 'x9.large', '--dry-run'])
    t.equal(unknown.code, 2, unknown.output)
    t.match(unknown.output, /x9\.large/)
    const mixed = await setup.run([...bundle, '--worker-types', 'c7g.large,c5.large', '--yes'])
    t.equal(mixed.code, 2, mixed.output)
    t.match(mixed.output, /some worker types are Arm, others x86-64/)
  })

  changesNothing('a dry run shows the plan', async t => {
    front.quotas.set('L-1216C47A', 64)
    const handlers = join(setup.folder, 'own.ts')
    writeFileSync(
      handlers,
      "import { defineHandler } from 'muster'\nexport const own = defineHandler({ type: 'ownType', handle: () => 1 })\n",
    )
    const args = [
      ...bundle,
      '--handlers',
      handlers,
      '--instance-type',
      'm5.large',
      '--load-balancer',
      'internal',
      '--plain-http',
      '--alarm-email',
      'ops@example.com',
    ]
    const dry = await setup.run([...args, '--dry-run'])
    t.equal(dry.code, 0, dry.output)
    t.match(dry.output, /2 × m5\.large \(x86_64\)/)
    t.match(dry.output, /a load balancer, internal/)
    t.match(dry.output, /handlers +\S+own\.ts, for the types .*ownType/)
    t.match(dry.output, /alarms +to ops@example\.com/)
    t.match(dry.output, /2 nodes, m5\.large +0\.1920/, 'from the price list')
    t.match(dry.output, /witness, t4g\.small +~ +0\.0168/, 'from the table')
    t.match(dry.output, /idle, an hour/)
    t.match(dry.output, /nothing was made/)
  })

  changesNothing('there is nothing to look at', async t => {
    const { code, output } = await setup.run(['--status', '--name', 'absent'])
    t.equal(code, 11, output)
  })
}
