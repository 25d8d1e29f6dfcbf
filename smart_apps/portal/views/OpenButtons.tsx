/** The two ways on from a patient: look at the images, or at the options. */
import { FileSearchOutlined, SolutionOutlined } from "@ant-design/icons";
import { Button, Space } from "antd";
import { useTranslation } from "react-i18next";
import type { Open } from "./Home";

export function OpenButtons({ patientId, open, primary }: { patientId: string; open: Open; primary: boolean }) {
  const { t } = useTranslation();
  return (
    <Space size={6} wrap={false}>
      <Button
        size="small"
        type={primary ? "primary" : "default"}
        icon={<FileSearchOutlined aria-hidden />}
        data-testid="open-review"
        onClick={() => open("result-review", patientId)}
      >
        {t("portal.review")}
      </Button>
      <Button size="small" icon={<SolutionOutlined aria-hidden />} data-testid="open-plan" onClick={() => open("care-plan", patientId)}>
        {t("portal.plan")}
      </Button>
    </Space>
  );
}
