/** What most tests that need AWS start with: moto, the front before it, a client of EC2, and something to launch. */
import { EC2, type Instance } from '@aws-sdk/client-ec2'
import type { Test } from 'tap'
import { type Front, startFront } from './front.ts'
import { httpCall } from './http-call.ts'
import { type Moto, startMoto } from './moto.ts'
import { printQuery } from './query.ts'
import { type Credentials, signedHeaders } from './signature.ts'

export interface TestAws {
  readonly moto: Moto
  readonly front: Front
  /** How clients are opened: region, endpoint, keys, one attempt a call. */
  readonly access: typeof regionAndKeys & { readonly endpoint: string }
  readonly ec2: EC2
  /** All instances that EC2 shows, also terminated ones. */
  allInstances(): Promise<Instance[]>
  /** The id of the subnet of the default VPC in this zone. */
  subnetOf(zone: string): Promise<string>
  /**
   * Makes the launch template `worker`, with a security group and the instance profile `worker`.
   * @returns the id of the security group
   */
  createTemplate(more?: object): Promise<string>
  /** Asks moto's IAM something, with the query parameters of the action. @returns the reply, XML */
  iam(params: Readonly<Record<string, string>>, credentials?: Credentials): Promise<string>
}

const regionAndKeys = {
  region: 'us-east-1',
  credentials: { accessKeyId: 'test', secretAccessKey: 'test' },
  maxAttempts: 1,
}

/** Call it with the `t` of the file: where moto is missing, the whole file is skipped (in CI it fails). */
export async function startAws(t: Test): Promise<TestAws> {
  process.env.AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED = 'true'
  const moto = await startMoto(t)
  const front = await startFront(t, moto)
  const access = { ...regionAndKeys, endpoint: front.url }
  const ec2 = new EC2(access)
  t.teardown(() => ec2.destroy())

  const iam: TestAws['iam'] = async (params, credentials = access.credentials) => {
    const body = printQuery({ Version: '2010-05-08', ...params })
    const scope = { region: 'us-east-1', service: 'iam' }
    const headers = signedHeaders(body, new URL(moto.url).host, scope, credentials)
    const reply = await httpCall(moto.url, { method: 'POST', headers, body })
    if (reply.status !== 200) throw new Error(`moto's IAM answered ${reply.status}: ${reply.body}`)
    return reply.body.toString()
  }
  return {
    moto,
    front,
    access,
    ec2,
    iam,
    async allInstances() {
      const { Reservations = [] } = await ec2.describeInstances({})
      return Reservations.flatMap(({ Instances = [] }) => Instances)
    },
    async subnetOf(zone) {
      const { Subnets = [] } = await ec2.describeSubnets({ Filters: [{ Name: 'availability-zone', Values: [zone] }] })
      return Subnets[0]?.SubnetId ?? ''
    },
    async createTemplate(more = {}) {
      await iam({ Action: 'CreateInstanceProfile', InstanceProfileName: 'worker' })
      const { GroupId = '' } = await ec2.createSecurityGroup({ GroupName: 'workers', Description: 'workers' })
      await ec2.createLaunchTemplate({
        LaunchTemplateName: 'worker',
        LaunchTemplateData: {
          ImageId: 'ami-2',
          InstanceType: 'c5.large',
          IamInstanceProfile: { Name: 'worker' },
          SecurityGroupIds: [GroupId],
          InstanceInitiatedShutdownBehavior: 'terminate',
          MetadataOptions: { HttpTokens: 'required', InstanceMetadataTags: 'enabled' },
          BlockDeviceMappings: [{ DeviceName: '/dev/xvda', Ebs: { VolumeSize: 9, DeleteOnTermination: true } }],
          ...more,
        },
      })
      return GroupId
    },
  }
}
