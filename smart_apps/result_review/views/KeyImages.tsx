/** Key images of the report: small beside the findings, large on a click. */
import type { Session } from "@client/session";
import { useQuery } from "@tanstack/react-query";
import { Alert, Image, Spin } from "antd";
import { useTranslation } from "react-i18next";
import { loadKeyImages } from "../pixels";

interface KeyImagesProps {
  session: Session;
  study: string;
  series: string;
}

export function KeyImages({ session, study, series }: KeyImagesProps) {
  const { t } = useTranslation();
  const pictures = useQuery({
    queryKey: ["key-images", series],
    queryFn: () => loadKeyImages(session, study, series),
    staleTime: Infinity,
    gcTime: Infinity,
  });
  return (
    <section data-testid="key-images">
      <h2>{t("review.keyImages")}</h2>
      {pictures.isPending ? <Spin size="small" /> : null}
      {pictures.error ? <Alert type="warning" showIcon title={t("review.noKeyImages")} description={pictures.error.message} /> : null}
      <Image.PreviewGroup>
        {(pictures.data ?? []).map((url, index) => (
          <Image key={url} src={url} width={180} alt={t("review.keyImage", { number: index + 1 })} />
        ))}
      </Image.PreviewGroup>
    </section>
  );
}
