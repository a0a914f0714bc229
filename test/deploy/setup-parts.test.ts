/**
 * Parts of setup.sh, each alone, with an `aws` that answers what an account may answer and the emulator does not: a plan, an image
 * of another maker, a launch that fails, a name that is not free yet.
 */
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { patienceMs } from '../support/until.ts'

const root = fileURLToPath(new URL('../../', import.meta.url))
const sources = [...readFileSync(join(root, 'setup.sh'), 'utf8').matchAll(/^\. "\$ROOT\/(.+)"$/gm)].map(
  ([, file]) => `. '${root}${file}'`,
)

/**
 * @param aws what the AWS CLI answers, as branches of a `case` over "<service> <operation>"; others fail
 * @param settings of the stack, a line each
 */
function part(t: { testdir(): string }, script: string, aws = '', settings: Readonly<Record<string, string>> = {}) {
  const lines = Object.entries(settings).map(([name, value]) => `${name}=${value}\n`)
  const text = [
    'set -euo pipefail',
    `ROOT='${root}'`,
    ...sources,
    "COMMAND=deploy YES=no NAME=m REGION=eu-central-1 ACCOUNT=123456789012 PARTITION=aws STATE=none GIVEN='' STACK_ID=''",
    'TIMEOUT_MINUTES=1',
    `refuse() { echo "An error occurred ($1) when calling the X operation: $1" >&2; return 254; }`,
    `aws() { case "$1 $2" in\n${aws}\n*) refuse NotImplemented ;;\nesac; }`,
    'make_workplace',
    `printf '%s' '${lines.join('')}' >"$WORK/settings"`,
    ': >"$WORK/deployed"',
    script,
  ].join('\n')
  const { status, stdout, stderr } = spawnSync('bash', ['-c', text], {
    encoding: 'utf8',
    env: { ...process.env, TMPDIR: t.testdir(), MUSTER_SETUP_PAUSE: '0' },
  })
  return { code: status, output: `${stdout}${stderr}` }
}

const types =
  'ec2\\ describe-instance-types) printf "t4g.medium\\tarm64\\t2\\t4096\\tFalse\\nt4g.small\\tarm64\\t2\\t2048\\tTrue\\n" ;;'
const small = {
  ...{ pNodeInstanceType: 't4g.small', pWitnessInstanceType: 't4g.small', pWorkerInstanceTypes: 't4g.small' },
  ...{ pRedis: 'nodes', pRedisMemoryMb: '1024' },
}

t.test('a Free plan is told before anything is made, with types that it has', async t => {
  const plan = (type: string): string => `freetier\\ get-account-plan-state) echo ${type} ;;\n${types}`
  const settings = { ...small, pNodeInstanceType: 't4g.medium' }
  const refused = part(t, 'check_types', plan('FREE'), settings)
  t.equal(refused.code, 5, refused.output)
  t.match(refused.output, /Free plan of AWS, which does not launch t4g\.medium\n/)
  t.match(refused.output, '--instance-type t4g.small')
  t.equal(part(t, 'check_types', plan('FREE'), small).code, 0)
  t.equal(part(t, 'check_types', plan('PAID'), settings).code, 0)
  t.equal(part(t, 'check_types', types, settings).code, 0, 'a plan that cannot be read stops nobody')
})

t.test('an image of another kind than Amazon Linux is refused by its disk', async t => {
  const image = (device: string) => `ec2\\ describe-images) printf 'arm64\\t${device}\\n' ;;`
  const other = part(t, 'check_image ami-1 arm64 --ami', image('/dev/sda1'))
  t.equal(other.code, 2)
  t.match(other.output, /the disk of the image ami-1 is \/dev\/sda1/)
  t.equal(part(t, 'check_image ami-1 arm64 --ami', image('/dev/xvda')).code, 0)
  t.match(part(t, 'check_image ami-1 x86_64 --ami', image('/dev/xvda')).output, /is for arm64/)
})

t.test('why a group cannot launch its machine is told', async t => {
  const activities = `autoscaling\\ describe-scaling-activities) printf 'm-nodeAGroup-1\\tnot eligible for Free Tier\\nm-nodeAGroup-1\\tolder\\n' ;;`
  const { output } = part(t, 'show_failures', `${activities}\ncloudformation\\ describe-stack-events) : ;;`)
  t.match(output, /Machines that could not be launched:\n +m-nodeAGroup-1: not eligible for Free Tier\n/)
  t.notMatch(output, 'older')
  const twice = part(t, 'warn_of_launches; warn_of_launches', activities)
  t.equal(twice.output.match(/not eligible/g)?.length, 1, 'once')
})

t.test('the name of a bucket that was just deleted is waited for', async t => {
  const aws = `s3api\\ create-bucket)
    if [ -f "$WORK/asked" ]; then echo "$*" >"$WORK/made"; return 0; fi
    touch "$WORK/asked"
    refuse OperationAborted ;;`
  const { code, output } = part(t, 'BUCKET=b; create_bucket; cat "$WORK/made"', aws)
  t.equal(code, 0, output)
  t.match(output, /S3 has not let go of the name b/)
  t.match(output, 'LocationConstraint=eu-central-1')
  t.equal(part(t, 'BUCKET=b; create_bucket', 's3api\\ create-bucket) refuse AccessDenied ;;').code, 4)
})

t.test('every partition has its own addresses', async t => {
  const aws = `sts\\ get-caller-identity) printf '123456789012\\tarn:%s:iam::123456789012:user/u\\n' "$KIND" ;;
s3api\\ put-object) echo etag ;;`
  for (const [kind, region, suffix] of [
    ['aws', 'eu-central-1', 'amazonaws.com'],
    ['aws-cn', 'cn-north-1', 'amazonaws.com.cn'],
    ['aws-us-gov', 'us-gov-west-1', 'amazonaws.com'],
    ['aws-eusc', 'eusc-de-east-1', 'amazonaws.eu'],
  ]) {
    const script = `KIND=${kind} REGION=${region}; check_credentials; BUCKET=b TEMPLATE=/dev/null; upload_template; echo "$PARTITION $TEMPLATE_URL"`
    const { output } = part(t, script, aws)
    t.match(output, `${kind} https://b.s3.${region}.${suffix}/templates/muster.yaml`)
  }
})

t.test('the quota of Spot is looked at where Spot is wanted', async t => {
  const aws = `service-quotas\\ get-service-quota) case "$*" in *L-34B43A08*) echo 5.0 ;; *) echo 64.0 ;; esac ;;
ec2\\ describe-instances) : ;;`
  const settings = { ...small, pMaxWorkers: '8', pPublicAddresses: 'no', pVpcId: 'vpc-1' }
  const look = (spot: string) =>
    part(t, 'printf "t4g.small\\tarm64\\t2\\t2048\\tTrue\\n" >"$WORK/types"; check_limits', aws, {
      ...settings,
      pSpotPercent: spot,
    })
  t.match(look('50').output, /5 vCPUs of Spot instances in eu-central-1, all Spot workers take 8/)
  t.notMatch(look('0').output, /Spot instances/)
})

t.test('of a VPC that exists the subnets of the load balancer are looked up, two zones of it', async t => {
  const aws = `ec2\\ describe-subnets) shift 3; for id; do
    case "$id" in
    s-a) printf 'a\\tvpc-1\\t10.9.0.0/24\\n' ;;
    s-b) printf 'b\\tvpc-1\\t10.9.1.0/24\\n' ;;
    s-lb) printf 'b\\tvpc-1\\t10.9.9.0/24\\n' ;;
    s-other) printf 'b\\tvpc-2\\t10.8.0.0/24\\n' ;;
    esac; done ;;`
  const look = (subnets: string, more: Readonly<Record<string, string>> = {}) =>
    part(t, `read_settings() { :; }; BALANCER_SUBNETS=${subnets}; check_balancer_subnets; given pBalancerCidrs`, aws, {
      ...{ pVpcId: 'vpc-1', pSubnetIds: 's-a,s-b,s-c', pZoneA: 'a', pZoneB: 'b', pLoadBalancer: 'internal', ...more },
    })
  t.equal(look("''").output, '10.9.0.0/24,10.9.1.0/24', 'those of the nodes, unless others are named')
  t.equal(look('s-a,s-lb').output, '10.9.0.0/24,10.9.9.0/24')
  t.equal(look("''", { pBalancerSubnetIds: 's-a,s-lb' }).output, '10.9.0.0/24,10.9.9.0/24', 'an update keeps them')
  t.equal(look("''", { pLoadBalancer: 'none' }).output, '')
  t.equal(look("''", { pVpcId: '' }).output, '', 'the template knows those of its own network')
  t.equal(look('s-lb,s-a').output, '10.9.0.0/24,10.9.9.0/24', 'in one order, however AWS answers')
  t.match(look('s-b,s-lb'), { code: 2, output: /two of the subnets s-b,s-lb are in one zone/ })
  t.match(look('s-lb'), { code: 2, output: /none of the subnets s-lb is in a, where a node is/ })
  t.match(look('s-a,s-other'), { code: 2, output: /are not all in vpc-1/ })
  const options = (...args: string[]) =>
    part(t, `read_options ${args.join(' ')}; check_together`, '', { pLoadBalancer: 'none', pVpcId: '' })
  t.match(options('--balancer-subnets', 's-a,s-b'), { code: 2, output: /add --load-balancer and --subnets/ })
  t.match(options('--permissions-boundary', 'mine'), { code: 2, output: /is the ARN of a policy, or none/ })
})

t.test('another deployment whose name begins alike is not this one', async t => {
  const aws = (names: string) => `cloudformation\\ list-stack-resources) printf '${names}' ;;
cloudwatch\\ describe-alarms) case "$*" in *--alarm-names\\ m-a-1\\ m-b-1*) printf 'OK\\tm-a-1\\tA\\nALARM\\tm-b-1\\tB\\n' ;; esac ;;`
  const raised = part(t, 'show_alarms || echo unwell', aws('m-a-1\\nm-b-1\\n'))
  t.match(raised.output, /ALARM +B\nunwell/)
  t.match(part(t, 'show_alarms || echo unwell', aws('')).output, /nothing watches this deployment\nunwell/)
})

t.test('nobody to ask is said before anything is done; a dry run of an update writes nothing', async t => {
  const folder = t.testdir()
  const run = (...args: string[]) =>
    spawnSync('bash', [join(root, 'setup.sh'), '--region', 'eu-central-1', ...args], {
      ...{ encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'], timeout: patienceMs },
      env: { ...process.env, TMPDIR: folder, AWS_ENDPOINT_URL: 'http://127.0.0.1:9', AWS_MAX_ATTEMPTS: '1' },
    })
  const text = readFileSync(join(root, 'setup.sh'), 'utf8')
  const dryRun = text.slice(text.indexOf('dry_run() {'), text.indexOf('read_options "$@"'))
  t.notMatch(dryRun, /upload_|make_change_set|make_bucket|make_redis_secret/)
  const deploy = text.slice(text.indexOf('deploy() {'), text.indexOf('prepare() {'))
  t.ok(deploy.indexOf('nobody is there to be asked') < deploy.indexOf('prepare'))
  t.equal(run('--vpc-cidr', '10.20.0.0/24').status, 2, 'three subnets do not fit')
  const changes = part(t, 'printf "pMaxWorkers\\t4\\npVolumeGb\\t16\\n" >"$WORK/deployed"; show_setting_changes', '', {
    pMaxWorkers: '6',
    pVolumeGb: '16',
  })
  t.match(changes.output, /pMaxWorkers: 4 -> 6\n/)
  t.notMatch(changes.output, 'pVolumeGb')
})

t.test('what an update replaces is said before the question', async t => {
  const show = (...lines: string[]) =>
    part(
      t,
      `printf '${lines.map(line => `Modify\\tFalse\\t${line}\\tAWS::X\\n`).join('')}' >"$WORK/changes"; show_changes`,
    ).output
  t.match(show('witnessLaunchTemplate', 'nodeALaunchTemplate'), /replaced, one after the other: witness nodeA \(/)
  t.match(show('nodeDownAlarm'), /No machine is replaced/)
  const fleet = show('fleetSettings', 'workerLaunchTemplate')
  t.match(fleet, /No machine is replaced/)
  t.match(fleet, /take the settings of the fleet over within a minute/)
  t.notMatch(show('nodeDownAlarm'), /settings of the fleet/)
  t.match(part(t, ': >"$WORK/changes"; show_changes').output, /does not say which parts/)
})

t.test('a smoke test on the nodes tells what was seen, and no more', async t => {
  const aws = (output: string) => `ec2\\ describe-instances) printf 'i-1\\ni-2\\n' ;;
ssm\\ send-command) echo c-1 ;;
ssm\\ get-command-invocation) printf 'Success\\t\\t${output}\\n' ;;`
  const smoke = (output: string) => part(t, 'SMOKE_MINUTES=1; smoke_on_nodes', aws(output)).output
  t.match(smoke('https://127.0.0.1:5000: a job went in, its value came out'), /both nodes: a job went in/)
  t.match(smoke(''), /no job was seen/)
})

t.test('what it costs counts every metric, and a worker with its disk and address', async t => {
  const settings = { ...small, pWorkerInstanceTypes: 'c7g.large', pVolumeGb: '16', pMinWorkers: '0', pMaxWorkers: '4' }
  const cost = (vpc: string) =>
    part(t, 'mkdir "$WORK/p"; node "$ROOT/scripts/lib/deploy/prices.mjs" "$WORK/settings" "$WORK/p"', '', {
      ...{ ...settings, pPublicAddresses: 'yes', pLoadBalancer: 'none', pVpcId: vpc },
    }).output
  // 17 metrics, 8 metrics of alarms, 3 secrets and what two nodes publish: 7.96 USD a month.
  t.match(cost(''), /secrets, alarms, metrics +0\.0121/)
  t.match(cost(''), /each worker with disk and address, c7g\.large +~ +0\.0786/)
  t.match(cost('vpc-1'), /each worker with disk and address, c7g\.large +~ +0\.0736/)
})

t.test('keys travel unencrypted only where that was said', async t => {
  const settings = {
    ...{ ...small, pLoadBalancer: 'internal', pCertificateArn: '', pDomainName: '', pHostedZoneId: '' },
    ...{ pPublicAddresses: 'yes', pVpcId: '', pSpotPercent: '0', pMinWorkers: '0', pMaxWorkers: '4' },
  }
  const check = (before: string, more = {}) => part(t, `${before}; check_together`, '', { ...settings, ...more })
  const refused = check('PLAIN_HTTP=no')
  t.equal(refused.code, 2)
  t.match(refused.output, /takes keys unencrypted: add --plain-http/)
  t.equal(check('PLAIN_HTTP=yes').code, 0)
  t.equal(check('PLAIN_HTTP=no', { pCertificateArn: 'arn:x' }).code, 0)
})

t.test('a newer Amazon Linux replaces no machine, unless it is asked for', async t => {
  const deployed = (...lines: string[]) => `printf '${lines.map(line => `${line}\\n`).join('')}' >"$WORK/deployed"`
  const keep = (prepare: string, more = 'UPDATE_IMAGES=no STATE=UPDATE_COMPLETE') =>
    part(t, `${prepare}; ${more}; keep_images; printf '%s\n' "$GIVEN"`).output
  const found = deployed('pArmImage\\t/aws/arm', 'pArmImage.resolved\\tami-1', 'pIntelImage.resolved\\tami-2')
  t.match(keep(found), /pKeptArmImageId=ami-1\npKeptIntelImageId=ami-2\n/, 'what was found stays')
  const kept = deployed('pArmImage.resolved\\tami-9', 'pKeptArmImageId\\tami-1', 'pIntelImage.resolved\\tami-2')
  t.match(keep(kept), 'pKeptArmImageId=ami-1\n', 'also when the stack has looked again since')
  t.match(keep(kept, 'UPDATE_IMAGES=yes STATE=UPDATE_COMPLETE'), /pKeptArmImageId=\npKeptIntelImageId=\n/)
  t.notMatch(
    keep(': >"$WORK/deployed"', 'UPDATE_IMAGES=no STATE=none'),
    'pKept',
    'the first deployment takes the newest',
  )

  const settings = { pKeptArmImageId: 'ami-1', pArmImage: '/aws/arm', pRedis: 'nodes', pKeptIntelImageId: 'ami-2' }
  const show = (newest: string) => part(t, 'show_images', `ssm\\ get-parameters) echo ${newest} ;;`, settings).output
  t.match(show('ami-7'), /ami-1 stays; Amazon Linux has a newer one, ami-7: --update-images/)
  t.equal(show('ami-1'), '  image       ami-1 stays\n', 'and nothing of a processor that no machine has')
  t.equal(part(t, 'show_images', '', settings).code, 0, 'nobody waits for it')
})

t.test('what the stack was told about images, and what it found, are two things', async t => {
  const folder = t.testdir({
    'reply.json': JSON.stringify({
      Stacks: [
        {
          ...{ StackStatus: 'CREATE_COMPLETE', StackId: 'arn' },
          Parameters: [{ ParameterKey: 'pArmImage', ParameterValue: '/aws/arm', ResolvedValue: 'ami-1' }],
        },
      ],
    }),
  })
  const files = ['reply.json', 'deployed', 'outputs'].map(name => join(folder, name))
  t.equal(spawnSync('node', [join(root, 'scripts/lib/deploy/read-stack.mjs'), ...files]).status, 0)
  t.equal(readFileSync(files[1] ?? '', 'utf8'), 'pArmImage\t/aws/arm\npArmImage.resolved\tami-1\n')
})
